from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.keypoints.heatmap import draw_points, heatmap, weighted
from CrossKEYLib.keypoints.keypoints import Keypoints, distances

# 2 x 1 x 1.5 mm, left-handed, away from the origin.
GRID = Grid((24, 30, 20), from_parts(np.diag([-2.0, 1, 1.5]), [40, -10, 5]))


def at(*ijk: tuple[float, float, float]) -> Keypoints:
    points = torch.tensor(ijk, dtype=torch.float32).reshape(-1, 3)
    matrix = torch.tensor(GRID.ijk_to_ras, dtype=torch.float32)
    n = len(points)
    ras = points @ matrix[:3, :3].T + matrix[:3, 3]
    return Keypoints(ras, torch.ones(n), torch.ones(n), torch.eye(3).expand(n, 3, 3))


def bump(i: int, j: int, k: int, sigma: float = 2.0) -> torch.Tensor:
    """Blur of one count: a Gaussian cut at three sigma along each axis, 1 at its centre."""
    profiles = []
    for size, centre in zip(GRID.shape, (k, j, i), strict=True):
        x = torch.arange(size, dtype=torch.float32) - centre
        cut = x.abs() <= math.ceil(3 * sigma)
        profiles.append(torch.exp(-0.5 * (x / sigma) ** 2) * cut)
    return torch.einsum("k,j,i->kji", *profiles)


def test_one_keypoint_is_one_gaussian() -> None:
    made = heatmap([[at((10, 15, 12))]], GRID)
    assert torch.allclose(made.array, bump(10, 15, 12), atol=1e-5)
    assert np.array_equal(made.ijk_to_ras, GRID.ijk_to_ras)


def test_counts_add_within_a_modality_and_are_scaled_by_their_peak() -> None:
    # Two images agree on one place, a third of the weight lies elsewhere, out of reach.
    images = [at((6, 7, 12)), at((6.4, 6.6, 12.3), (13, 22, 12))]
    made = heatmap([images], GRID)
    assert torch.allclose(made.array, bump(6, 7, 12) + 0.5 * bump(13, 22, 12), atol=1e-5)


def test_modalities_combine_as_a_plus_b_minus_ab() -> None:
    made = heatmap([[at((9, 14, 12))], [at((11, 16, 11))]], GRID)
    a, b = bump(9, 14, 12), bump(11, 16, 11)
    assert torch.allclose(made.array, a + b - a * b, atol=1e-5)
    assert float(made.array.max()) <= 1


def test_no_keypoint_or_none_inside_gives_zero() -> None:
    assert float(heatmap([[at()], []], GRID).array.abs().max()) == 0
    assert float(heatmap([[at((-3, 5, 5), (5, 5, 24))]], GRID).array.abs().max()) == 0


def test_weight_falls_with_distance_from_the_centre() -> None:
    ones = Volume(torch.ones(GRID.shape), GRID.ijk_to_ras)
    centre = GRID.ijk_to_ras @ np.array([10, 15, 12, 1.0])
    made = weighted(ones, centre[:3].tolist(), 10.0)
    assert float(made.array[12, 15, 10]) == pytest.approx(1)
    assert float(made.array[12, 20, 10]) == pytest.approx(0.75, abs=1e-5)  # 5 mm along j
    assert float(made.array[12, 15, 13]) == pytest.approx(1 - 0.36, abs=1e-5)  # 6 mm along i
    assert float(made.array[12, 26, 10]) == 0


def test_drawn_points_keep_their_distance() -> None:
    field = Volume(torch.ones(40, 40, 40), from_parts(np.eye(3), [500, -300, 800]))
    points = draw_points(field, 150, torch.Generator().manual_seed(1))
    assert points.shape == (150, 3)
    assert float(torch.pdist(points).min()) >= 4.0
    inside = field.sample(points)
    assert float(inside.min()) >= 0.49  # at most half a voxel beyond the outermost centres


def test_draw_fills_up_without_overlap_when_asked_for_too_many() -> None:
    field = Volume(torch.ones(30, 30, 30), np.eye(4))
    points = draw_points(field, 5000, torch.Generator().manual_seed(1))
    assert float(torch.pdist(points).min()) >= 4.0
    # A random sequential filling by spheres ends near a volume share of 0.38; no place is left.
    grid = Grid.of(field).points().reshape(-1, 3)
    uncovered = (distances(grid, points).amin(1) > 4.6).float().mean()
    assert float(uncovered) == 0
    assert 250 < len(points) < 600


def test_density_follows_the_heatmap() -> None:
    array = torch.zeros(30, 30, 30)
    array[:, :, :10], array[:, :, 10:20] = 3.0, 1.0
    field = Volume(array, np.eye(4))
    draws = [draw_points(field, 200, torch.Generator().manual_seed(s), 0.0) for s in range(30)]
    x = torch.cat(draws)[:, 0]
    assert len(x) == 6000
    assert float(x.max()) <= 19.5
    # 3 : 1, standard deviation of the share 0.0056
    assert float((x < 9.5).float().mean()) == pytest.approx(0.75, abs=0.022)
    fraction = torch.cat(draws) - torch.cat(draws).round()
    assert float(fraction.mean()) == pytest.approx(0, abs=0.01)
    assert float(fraction.std()) == pytest.approx(1 / math.sqrt(12), abs=0.01)


def test_order_of_the_draw_is_by_chance_not_by_rank() -> None:
    array = torch.zeros(9, 9, 9)
    array[4, 4, 4], array[0, 0, 0] = 3.0, 1.0
    field = Volume(array, np.eye(4))
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([draw_points(field, 1, generator)[0] for _ in range(600)])
    assert float((first[:, 0] > 2).float().mean()) == pytest.approx(0.75, abs=0.07)


def test_same_generator_state_same_points() -> None:
    field = Volume(torch.rand(20, 20, 20), np.eye(4))
    a, b = (draw_points(field, 50, torch.Generator().manual_seed(7)) for _ in range(2))
    c = draw_points(field, 50, torch.Generator().manual_seed(8))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_mask_limits_the_draw() -> None:
    field = Volume(torch.ones(32, 32, 32), np.eye(4))
    mask = Volume(torch.zeros(16, 16, 16), np.diag([2.0, 2, 2, 1]))
    mask.array[:, :8] = 1  # j below 8, that is up to 15 mm
    points = draw_points(field, 40, torch.Generator().manual_seed(2), mask=mask)
    assert len(points) == 40
    assert float(points[:, 1].max()) <= 15.01


def test_empty_heatmap_gives_no_point() -> None:
    field = Volume(torch.zeros(8, 8, 8), np.eye(4))
    assert draw_points(field, 10, torch.Generator()).shape == (0, 3)
