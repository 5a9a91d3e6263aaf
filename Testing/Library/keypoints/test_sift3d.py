from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import SiftConfig
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.transform import about, apply, from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.keypoints.keypoints import Keypoints, distances
from CrossKEYLib.keypoints.sift3d import detect
from Testing.Studies.repeatability import found_again, repeatability, table

# A round blob has no orientation, so the tests that would reject it are off here.
ROUND = SiftConfig(corner_threshold=0.0, max_eigenvalue_ratio=1.0)
OBLIQUE = Rotation.from_euler("xyz", [25, -40, 15], degrees=True).as_matrix()


def oblique(spacing: tuple[float, float, float], flip: bool, size_mm: float = 48) -> Grid:
    """Rotated grid of about ``size_mm`` around (20, -30, 10); left-handed if flipped."""
    axes = OBLIQUE @ np.diag([-1.0 if flip else 1.0, 1, 1])
    i, j, k = (round(size_mm / s) for s in spacing)
    linear = axes * np.array(spacing)
    middle = (np.array([i, j, k]) - 1) / 2
    return Grid((k, j, i), from_parts(linear, np.array([20.0, -30, 10]) - linear @ middle))


def blob(grid: Grid, centre: np.ndarray, sigma: np.ndarray | float) -> torch.Tensor:
    offset = grid.points() - torch.tensor(centre, dtype=torch.float32)
    return torch.exp(-0.5 * (offset / torch.as_tensor(sigma)).square().sum(-1))


def texture(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    smooth = gaussian(noise, 2.0) + 2 * gaussian(noise.flip(0), 4.0)
    return 5 + smooth / smooth.std()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.4), (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("sigma", [3.0, 4.5])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_blob_is_found_where_it_is_and_as_large_as_it_is(spacing, flip, sigma, sign) -> None:
    grid = oblique(spacing, flip)
    centre = np.array([21.3, -28.8, 9.6])
    found = detect(Volume(3 + sign * blob(grid, centre, sigma), grid.ijk_to_ras), ROUND)
    assert len(found) >= 1
    assert np.linalg.norm(found.points[0].numpy() - centre) < 0.2
    assert float(found.scales[0]) == pytest.approx(sigma, rel=0.2)
    assert float(found.scores[0]) == pytest.approx(1.0, abs=0.1)


def test_scale_follows_the_size_closely_over_two_octaves() -> None:
    grid = Grid((64, 64, 64), np.eye(4))
    for sigma in (2.6, 3.3, 4.2, 5.5, 7.0):
        found = detect(Volume(blob(grid, np.full(3, 31.4), sigma), np.eye(4)), ROUND)
        assert float(found.scales[0]) == pytest.approx(sigma, rel=0.08)


def test_same_blob_at_another_working_spacing() -> None:
    grid = Grid((64, 64, 64), np.diag([0.5, 0.5, 0.5, 1]))
    volume = Volume(blob(grid, np.array([15.2, 16.1, 15.6]), 2.0), grid.ijk_to_ras)
    for spacing in (None, 0.6):
        found = detect(volume, ROUND, spacing_mm=spacing)
        assert torch.linalg.norm(found.points[0] - torch.tensor([15.2, 16.1, 15.6])) < 0.2
        assert float(found.scales[0]) == pytest.approx(2.0, rel=0.2)


def test_blob_midway_between_voxels_counts_once() -> None:
    grid = Grid((48, 48, 48), np.eye(4))
    found = detect(Volume(blob(grid, np.full(3, 23.5), 3.0), np.eye(4)), ROUND)
    assert len(found) == 1
    assert torch.allclose(found.points[0], torch.full((3,), 23.5), atol=0.05)


def test_planes_and_lines_give_nothing_where_a_blob_does() -> None:
    shape, generator = (48, 48, 48), torch.Generator().manual_seed(3)
    x = Grid(shape, np.eye(4)).points() @ torch.tensor(OBLIQUE, dtype=torch.float32)
    x = x - x[24, 24, 24]
    across = torch.linalg.norm(x[..., :2], dim=-1)
    noise = 0.01 * torch.randn(shape, generator=generator)
    step, sheet = torch.sigmoid(x[..., 0]), torch.exp(-0.5 * (x[..., 0] / 2.5) ** 2)
    line = torch.exp(-0.5 * (across / 2.5) ** 2)
    for flat in (step, sheet, line):
        assert len(detect(Volume(flat + noise, np.eye(4)))) == 0
    # As long as it is a blob, and lopsided, it is a corner.
    spot = torch.exp(-0.5 * (x / torch.tensor([2.2, 3.0, 4.0])).square().sum(-1))
    spot = spot + 0.05 * (x @ torch.tensor([1.0, 1.2, 1.5])) / 10
    found = detect(Volume(spot + noise, np.eye(4)))
    assert float(torch.linalg.norm(found.points[0] - 24)) < 0.5


@pytest.mark.parametrize("turn", [(2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_quarter_turns_carry_keypoints_and_orientations_along(turn) -> None:
    array = texture((36, 40, 44))
    permute = np.eye(3)[list(turn)]  # new array axis a is old axis turn[a]
    turned = array.permute(turn)
    if np.linalg.det(permute) < 0:
        turned, permute = turned.flip(0), np.diag([-1.0, 1, 1]) @ permute
    fixed, moving = (detect(Volume(a, np.eye(4))) for a in (array, turned.contiguous()))
    linear = permute[::-1, ::-1]  # the same map in (i, j, k) order
    middle_old = (np.array(array.shape[::-1]) - 1) / 2
    middle_new = (np.array(turned.shape[::-1]) - 1) / 2
    expected = apply(from_parts(linear, middle_new - linear @ middle_old), fixed.points)
    # An octave keeps every second voxel from the first on, so only the first is free of phase.
    assert len(fixed) >= 20
    first = fixed.scales < 3.4
    assert int(first.sum()) >= 10
    distance, index = distances(expected[first], moving.points).min(1)
    assert float(distance.max()) < 1e-2
    rotated = torch.tensor(linear.copy(), dtype=torch.float32) @ fixed.orientations[first]
    assert torch.allclose(rotated, moving.orientations[index], atol=1e-2)
    assert torch.allclose(fixed.scales[first], moving.scales[index], rtol=1e-3)


def test_the_way_a_volume_is_stored_does_not_matter() -> None:
    array = texture((37, 37, 37))  # odd, so that a flip keeps the octaves' voxels
    matrix = from_parts(OBLIQUE, [5, -7, 3])
    flipped = matrix @ from_parts(np.diag([-1.0, 1, -1]), [36, 0, 36])
    fixed = detect(Volume(array, matrix))
    moving = detect(Volume(array.flip(2).flip(0), flipped))
    assert len(fixed) >= 20
    assert len(fixed) == len(moving)
    distance, index = distances(fixed.points, moving.points).min(1)
    assert float(distance.max()) < 1e-2
    assert torch.allclose(fixed.orientations, moving.orientations[index], atol=1e-2)


def test_orientations_are_rotations_and_turn_with_the_image() -> None:
    array = texture((44, 44, 44), seed=5)
    motion = about(np.full(3, 21.5), OBLIQUE, [3, 1, -2])
    fixed, moving = detect(Volume(array, np.eye(4))), detect(Volume(array, motion))
    assert torch.allclose(apply(motion, fixed.points), moving.points, atol=1e-2)
    turn = torch.tensor(OBLIQUE, dtype=torch.float32)
    assert torch.allclose(turn @ fixed.orientations, moving.orientations, atol=1e-2)
    for keypoints in (fixed, moving):
        r = keypoints.orientations
        identity = torch.eye(3).expand(len(r), 3, 3)
        assert torch.allclose(r.transpose(1, 2) @ r, identity, atol=1e-5)
        assert torch.allclose(torch.linalg.det(r), torch.ones(len(r)), atol=1e-5)


def test_gain_and_offset_do_not_matter() -> None:
    array = texture((40, 40, 40))
    a, b = detect(Volume(array, np.eye(4))), detect(Volume(array * 300 - 900, np.eye(4)))
    assert len(a) == len(b)
    assert found_again(a, b, 0.01) == 1.0


def test_the_edge_of_the_fan_is_no_keypoint() -> None:
    shape = (56, 56, 56)
    p = Grid(shape, np.eye(4)).points()
    depth = p[..., 2]
    half_width = 6 + 0.55 * depth
    fan = (depth > 6) & (depth < 50)
    fan &= ((p[..., :2] - 28).abs() < half_width[..., None]).all(-1)
    dark = ((p - torch.tensor([28.0, 28, 34])).square().sum(-1) < 36) & fan  # empty, but inside
    inner = blob(Grid(shape, np.eye(4)), np.array([28.0, 28, 18]), 3.0)
    array = torch.where(fan & ~dark, 1 + inner, 0.0)
    found = detect(Volume(array, np.eye(4)), ROUND)
    outside = (~fan).nonzero().flip(1).float()
    assert float(distances(found.points, outside).min()) >= 2.0
    strong = found.points[found.scores > 0.3]
    for centre in ([28.0, 28, 18], [28.0, 28, 34]):
        assert float(distances(torch.tensor([centre]), strong).min()) < 0.5
    # Speckle-free tissue beside the fan's edge holds nothing else.
    rim = distances(found.points, outside).amin(1) < 5
    assert float(found.scores[rim].sum()) == 0


def test_nothing_at_the_border_of_grid_or_mask() -> None:
    array = texture((48, 48, 48))
    volume = Volume(array, np.eye(4))
    free = detect(volume)
    assert float(free.points.min()) >= 1.5  # two voxels, refined by up to half a voxel
    assert float(free.points.max()) <= 45.5
    mask = Volume(torch.zeros(24, 24, 24), np.diag([2.0, 2, 2, 1]))  # its own, coarser grid
    mask.array[:12] = 1  # superior limit at 23 mm
    kept = detect(volume, mask=mask)
    assert 0 < len(kept) < len(free)
    assert float(kept.points[:, 2].max()) <= 21.5
    mask.array[:] = 0
    assert len(detect(volume, mask=mask)) == 0


def test_strongest_come_first_and_can_be_limited() -> None:
    volume = Volume(texture((44, 44, 44)), np.eye(4))
    everything = detect(volume)
    assert bool((everything.scores.diff() <= 0).all())
    assert float(everything.scores.min()) >= 0.1
    few = detect(volume, SiftConfig(max_keypoints=7))
    assert torch.equal(few.points, everything.points[:7])
    assert len(detect(volume, SiftConfig(peak_threshold=0.4))) < len(everything)


def test_featureless_gradient_gives_no_keypoint() -> None:
    ramp = torch.arange(40.0).expand(40, 40, 40)
    found = detect(Volume(ramp, np.eye(4)))
    assert isinstance(found, Keypoints)
    assert len(found) == 0
    assert found.points.shape == (0, 3)
    assert found.orientations.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (torch.zeros(20, 20, 20), "constant"),
        (torch.full((20, 20, 20), 7.0), "constant"),
        (torch.full((20, 20, 20), float("nan")), "NaN"),
        (torch.rand(1, 64, 64), "too small"),
    ],
)
def test_unusable_input_is_refused_in_one_line(array, says) -> None:
    with pytest.raises(InputError, match=says) as caught:
        detect(Volume(array, np.eye(4)))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="spacing"):
        detect(Volume(torch.rand(20, 20, 20), np.eye(4)), spacing_mm=0.0)


def test_found_again_counts_within_the_tolerance() -> None:
    def at(*x: float) -> Keypoints:
        points = torch.tensor([[v, 0.0, 0.0] for v in x]).reshape(-1, 3)
        return Keypoints(points, points[:, 0], points[:, 0], torch.eye(3).expand(len(x), 3, 3))

    assert found_again(at(0, 10, 20, 30), at(1.9, 12.1, 20), 2.0) == 0.5
    assert found_again(at(0), at()) == 0.0


def test_repeatability_beats_chance_under_every_change() -> None:
    rows = repeatability(Volume(texture((48, 48, 48)), np.eye(4)))
    assert len(rows) == 9
    for row in rows[1:]:
        assert row.found_again > 0.3 > 2 * row.by_chance or row.found_again > 3 * row.by_chance
    assert len(table(rows).splitlines()) == 10
