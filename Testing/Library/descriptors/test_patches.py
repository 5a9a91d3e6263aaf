"""Patches hold what lies where they say, in millimetres, at any orientation of the volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.descriptors.patches import (
    axes_rotation,
    normalise,
    random_rotations,
    sample_patches,
)
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume

SLOPE = np.array([0.7, -1.3, 2.1])  # per mm along R, A, S


def oblique_ramp() -> Volume:
    """Intensity ``SLOPE . ras + 5`` on an oblique, anisotropic, left-handed grid."""
    axes = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    matrix = transform.from_parts(axes @ np.diag([-0.8, 1.1, 1.6]), [30.0, -25.0, -40.0])
    points = Grid((40, 60, 70), matrix).points().double()
    return Volume(points @ torch.from_numpy(SLOPE) + 5, matrix)


def expected_ramp(
    points: torch.Tensor, rotations: np.ndarray, size: int, step: float
) -> np.ndarray:
    axis = (np.arange(size) - (size - 1) / 2) * step
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij")
    offsets = np.stack([i, j, k], -1)
    turned = np.einsum("nab,kjib->nkjia", rotations, offsets)
    return (points.double().numpy()[:, None, None, None] + turned) @ SLOPE + 5


@pytest.mark.parametrize(("size", "step"), [(6, 1.0), (5, 0.7)])
def test_patches_of_a_ramp_match_the_closed_form(size: int, step: float) -> None:
    volume = oblique_ramp()
    points = torch.tensor(volume.centre_ras).float() + torch.tensor([[0, 0, 0], [2.3, -4.1, 3.7]])
    rotations = random_rotations(2, 180, torch.Generator().manual_seed(3))
    each = sample_patches(volume, points, size, step, rotations, chunk=1)
    one = sample_patches(volume, points, size, step, rotations[0])
    none = sample_patches(volume, points, size, step)
    assert each.shape == (2, 1, size, size, size)
    turned = rotations.double().numpy()
    for patches, used in [
        (each, turned),
        (one, np.stack([turned[0]] * 2)),
        (none, np.stack([np.eye(3)] * 2)),
    ]:
        np.testing.assert_allclose(
            patches[:, 0].numpy(), expected_ramp(points, used, size, step), atol=2e-3
        )


def test_unrotated_indices_grow_towards_superior_anterior_right() -> None:
    volume = oblique_ramp()
    patch = sample_patches(volume, torch.tensor(volume.centre_ras).float()[None], 4)[0, 0]
    steps = [torch.diff(patch, dim=d).mean().item() for d in range(3)]
    np.testing.assert_allclose(steps, SLOPE[::-1], atol=1e-3)


def test_patch_reads_zero_outside_the_volume() -> None:
    volume = Volume(torch.ones(8, 8, 8), np.eye(4))
    patch = sample_patches(volume, torch.tensor([[-20.0, 3, 3], [3.5, 3.5, 3.5]]), 4)
    assert patch[0].abs().max() == 0
    assert patch[1].min() == 1


def test_chunks_and_empty_input_change_nothing() -> None:
    volume = oblique_ramp()
    points = torch.tensor(volume.centre_ras).float() + torch.arange(21.0).reshape(7, 3) / 4
    whole = sample_patches(volume, points, 4, chunk=100)
    torch.testing.assert_close(sample_patches(volume, points, 4, chunk=3), whole, rtol=0, atol=0)
    assert sample_patches(volume, points[:0], 4).shape == (0, 1, 4, 4, 4)


def test_normalise_gives_zero_mean_unit_deviation_at_any_scale() -> None:
    patches = torch.randn(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    scaled = patches * torch.tensor([1.0, 1e-4, 300.0]).view(3, 1, 1, 1, 1) + 0.4
    result = normalise(scaled).double()
    assert result.mean((1, 2, 3, 4)).abs().max() < 1e-5
    torch.testing.assert_close(result.std((1, 2, 3, 4)), torch.ones(3).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalise(scaled)[2], normalise(patches)[2], atol=1e-4, rtol=0)


def test_normalise_leaves_no_noise_of_a_constant_patch() -> None:
    volume = Volume(torch.full((20, 20, 20), 0.37), np.eye(4))
    points = torch.tensor([[9.3, 9.1, 10.7], [200.0, 0, 0]])
    rotation = random_rotations(2, 40, torch.Generator().manual_seed(1))
    assert normalise(sample_patches(volume, points, 8, 1.0, rotation)).abs().max() == 0


def test_random_rotations_stay_within_their_angle_per_axis() -> None:
    rotations = random_rotations(400, 30, torch.Generator().manual_seed(5)).double().numpy()
    products = rotations @ rotations.transpose(0, 2, 1)
    assert abs(products - np.eye(3)).max() < 1e-6
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    angles = Rotation.from_matrix(rotations).as_euler("xyz", degrees=True)
    assert (abs(angles) <= 30.001).all()
    assert (angles.max(0) > 25).all()
    assert (angles.min(0) < -25).all()


def test_random_rotations_follow_their_generator() -> None:
    first, again = (random_rotations(3, 30, torch.Generator().manual_seed(5)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(random_rotations(2, 0), torch.eye(3).expand(2, 3, 3))


def test_axes_rotation_turns_patch_indices_to_the_named_directions() -> None:
    torch.testing.assert_close(axes_rotation("SAR"), torch.eye(3))
    volume = oblique_ramp()
    centre = torch.tensor(volume.centre_ras).float()[None]
    patch = sample_patches(volume, centre, 4, rotations=axes_rotation("PLS"))[0, 0]
    steps = [torch.diff(patch, dim=d).mean().item() for d in range(3)]
    np.testing.assert_allclose(steps, [-SLOPE[1], -SLOPE[0], SLOPE[2]], atol=1e-3)


@pytest.mark.parametrize("axes", ["SAL", "SSR", "SA", "XYZ", ""])
def test_axes_that_are_no_right_handed_frame_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match="right-handed"):
        axes_rotation(axes)
