"""Volumes: world positions, interpolation, blur and scaling against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Grid, Volume

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() @ np.diag(
    [0.7, -1.1, 2.3]  # anisotropic, and left-handed by the flip
)
OBLIQUE[:3, 3] = [11, -22, 33]


def ramp(shape: tuple[int, int, int], matrix: np.ndarray, slope: np.ndarray) -> Volume:
    """Samples that are a linear function of the world position."""
    empty = Volume(torch.zeros(shape), matrix)
    points = Grid.of(empty).points().double()
    return empty.replaced(points @ torch.from_numpy(slope) + 100)


def test_sampling_a_linear_function_is_exact_anywhere_inside() -> None:
    slope = np.array([0.5, -1.5, 2.0])
    volume = ramp((9, 10, 11), OBLIQUE, slope)
    inner = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 0.5
    points = volume.points_ras(inner)
    expected = points.double() @ torch.from_numpy(slope) + 100
    torch.testing.assert_close(volume.sample(points).double(), expected, atol=2e-3, rtol=0)


def test_outside_is_zero() -> None:
    volume = Volume(torch.ones(8, 8, 8), np.eye(4))
    assert volume.sample(torch.tensor([[20.0, 0, 0], [-9, 3, 3]])).tolist() == [0, 0]


def test_corners_and_centre_follow_the_index_order() -> None:
    volume = Volume(torch.zeros(3, 5, 7), OBLIQUE)
    last = OBLIQUE @ [6, 4, 2, 1]  # i, j, k: the reverse of the array's shape
    assert np.abs(volume.corners_ras() - last[:3]).sum(1).min() < 1e-9
    np.testing.assert_allclose(volume.centre_ras, (OBLIQUE @ [3, 2, 1, 1])[:3])
    np.testing.assert_allclose(volume.spacing_mm, [0.7, 1.1, 2.3])


def test_moving_a_volume_moves_its_world_and_no_sample() -> None:
    volume = ramp((6, 6, 6), OBLIQUE, np.array([1.0, 0, 0]))
    shift = np.eye(4)
    shift[:3, 3] = [5, 6, 7]
    points = volume.points_ras(torch.full((1, 3), 2.5))
    moved = volume.moved(shift).sample(points + torch.tensor([5.0, 6, 7]))
    torch.testing.assert_close(moved, volume.sample(points), atol=1e-3, rtol=0)


def test_grid_around_holds_all_points_with_its_margin() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3)) * 20
    axes = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    grid = Grid.around(points, 1.5, 4.0, axes)
    ijk = (points - grid.ijk_to_ras[:3, 3]) @ np.linalg.inv(grid.ijk_to_ras[:3, :3]).T
    size = np.array(grid.shape[::-1]) - 1
    assert (ijk >= 4.0 / 1.5 - 1e-6).all()
    assert (ijk <= size - 4.0 / 1.5 + 1e-6).all()
    assert (size * 1.5 < np.ptp(points @ axes, axis=0) + 8 + 1.5).all()  # and not larger


@pytest.mark.parametrize("sigmas", [0.6, 2.0, [0.0, 1.3, 3.0]])
def test_gaussian_equals_scipy_in_float64(sigmas: float | list[float]) -> None:
    array = np.random.default_rng(0).normal(size=(12, 14, 16))
    found = gaussian(torch.from_numpy(array).float(), sigmas)
    per_axis = [sigmas] * 3 if isinstance(sigmas, float) else sigmas
    radius = [int(np.ceil(3 * s)) for s in per_axis]
    expected = gaussian_filter(array, sigmas, mode="nearest", radius=radius)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_downsampling_does_not_alias() -> None:
    stripes = torch.zeros(32, 32, 32)
    stripes[:, :, ::2] = 1  # too fine for a 4 mm grid: only the mean may remain
    volume = Volume(stripes, np.eye(4))
    coarse = volume.resample(Grid.around(np.array([[8.0, 8, 8], [24, 24, 24]]), 4.0))
    assert coarse.array.std() < 0.02
    assert float(coarse.array.mean()) == pytest.approx(0.5, abs=0.02)


def test_rescaled_ignores_emptiness_and_outliers() -> None:
    array = torch.zeros(20, 20, 20)
    array[5:15, 5:15, 5:15] = torch.linspace(10, 20, 1000).reshape(10, 10, 10)
    array[10, 10, 10] = 1e6
    scaled = rescaled(Volume(array, np.eye(4))).array
    assert float(scaled.max()) == 1
    assert float(scaled[array == 0].max()) == 0
    assert float(scaled[array > 0].min()) > 0  # filled stays distinguishable from empty
    assert float(scaled[5:15, 5:15, 5:15].mean()) == pytest.approx(0.5, abs=0.01)


def test_constant_volume_is_refused() -> None:
    with pytest.raises(InputError, match="constant"):
        rescaled(Volume(torch.full((8, 8, 8), 3.0), np.eye(4)))


@pytest.mark.parametrize(
    ("array", "matrix", "words"),
    [
        (torch.zeros(4, 4), np.eye(4), "3D"),
        (torch.zeros(4, 4, 4), np.zeros((4, 4)), "singular"),
        (torch.zeros(4, 4, 4), np.full((4, 4), np.nan), "finite"),
    ],
)
def test_impossible_volumes_are_refused(
    array: torch.Tensor, matrix: np.ndarray, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Volume(array, matrix)


def test_a_box_holds_what_lies_within_its_rim():
    """Two mm spacing along i: the rim is in mm, not voxels; negative, it reaches beyond the box."""
    volume = Volume(torch.zeros(5, 5, 5), np.diag([2.0, 1.0, 1.0, 1.0]))
    points = torch.tensor([[8.0, 4.0, 4.0], [6.5, 2.0, 2.0], [9.5, 2.0, 2.0]])
    assert volume.contains(points).tolist() == [True, True, False]
    assert volume.contains(points, 1.0).tolist() == [False, True, False]
    assert volume.contains(points, 2.0).tolist() == [False, False, False]
    assert volume.contains(points, -2.0).tolist() == [True, True, True]
