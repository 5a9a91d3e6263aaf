"""Closed-form fits against known transforms and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.errors import EstimationError
from CrossKEYLib.estimation import affine, kabsch
from CrossKEYLib.estimation.kabsch import kabsch_of_sums, products
from CrossKEYLib.geometry.transform import apply, arbitrary_rigid


def cloud(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 40 * torch.randn(*shape, 3, generator=generator, dtype=torch.float64) + 70


@pytest.mark.parametrize("seed", range(5))
def test_exact_rigid_motion_is_recovered(seed):
    moving = cloud(seed, 20)
    T = arbitrary_rigid(np.random.default_rng(seed), 90, (10, -80, 40))
    found = kabsch(apply(T, moving), moving)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), T, atol=1e-9)


def test_float32_points_are_solved_in_float64():
    moving = cloud(1, 300).float()
    T = arbitrary_rigid(np.random.default_rng(1), 90, (10, -80, 40))
    found = kabsch(apply(T, moving.double()), moving)
    np.testing.assert_allclose(found.numpy(), T, atol=1e-6)


def test_many_weightings_at_once_equal_one_fit_each():
    moving = cloud(4, 50) - 70
    fixed = apply(arbitrary_rigid(np.random.default_rng(4), 20, (0, 0, 0)), moving)
    fixed = fixed + 3 * (cloud(5, 50) - 70) / 40
    weights = torch.rand(6, 50, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weights[4, 2:], weights[5] = 0, 0  # two points, and none
    found = kabsch_of_sums(weights @ products(fixed, moving))
    alone = kabsch(fixed.expand(6, 50, 3), moving.expand(6, 50, 3), weights)
    np.testing.assert_allclose(found[:4].numpy(), alone[:4].numpy(), atol=1e-9)
    assert found[4:].isnan().all()


def test_weighted_noisy_fit_equals_scipy():
    rng = np.random.default_rng(2)
    moving, weights = cloud(2, 30), torch.as_tensor(rng.uniform(0.1, 3, 30))
    fixed = apply(arbitrary_rigid(rng, 20, (0, 0, 0)), moving) + 4 * cloud(3, 30) / 40
    found = kabsch(fixed, moving, weights)
    centres = [(weights @ x / weights.sum()).numpy() for x in (fixed, moving)]
    expected, _ = Rotation.align_vectors(
        fixed.numpy() - centres[0], moving.numpy() - centres[1], weights=weights.numpy()
    )
    np.testing.assert_allclose(found[:3, :3].numpy(), expected.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(apply(found.numpy(), torch.as_tensor(centres[1])), centres[0])


def test_zero_weight_removes_a_point():
    moving, weights = cloud(4, 12), torch.ones(12)
    fixed = moving + 5.0
    fixed[3] += 500.0
    weights[3] = 0
    shift = kabsch(fixed, moving, weights) - torch.eye(4).double()
    np.testing.assert_allclose(shift[:3].numpy(), [[0, 0, 0, 5]] * 3, atol=1e-9)


def test_mirrored_points_still_give_a_rotation():
    moving = cloud(5, 15)
    rotation = kabsch(moving * torch.tensor([-1.0, 1, 1]), moving)[:3, :3]
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_points_in_a_plane_are_enough():
    moving = cloud(6, 10)
    moving[:, 2] = 3
    T = arbitrary_rigid(np.random.default_rng(6), 30, (0, 0, 0))
    np.testing.assert_allclose(kabsch(apply(T, moving), moving).numpy(), T, atol=1e-9)


@pytest.mark.parametrize("solve", [kabsch, affine])
def test_batch_equals_loop(solve):
    fixed, moving = cloud(7, 2, 3, 9), cloud(8, 2, 3, 9)
    weights = cloud(9, 2, 3, 9).abs()[..., 0]
    batch = solve(fixed, moving, weights)
    for i in range(2):
        for j in range(3):
            single = solve(fixed[i, j], moving[i, j], weights[i, j])
            np.testing.assert_allclose(batch[i, j], single, atol=1e-10)


LINE = torch.arange(6.0)[:, None] * torch.tensor([1.0, 2, -1]) + 50


@pytest.mark.parametrize(
    ("solve", "points"),
    [
        (kabsch, cloud(10, 2)),
        (kabsch, torch.empty(0, 3)),
        (kabsch, LINE),
        (kabsch, torch.full((5, 3), 7.1)),
        (affine, cloud(11, 3)),
        (affine, cloud(12, 8) * torch.tensor([1.0, 1, 0])),
    ],
)
def test_degenerate_points_are_refused(solve, points):
    with pytest.raises(EstimationError, match="at least"):
        solve(points, points)


def test_degenerate_item_of_a_batch_is_nan_and_spares_the_others():
    points = torch.stack([LINE.double(), cloud(13, 6)])
    found = kabsch(points, points)
    assert found[0].isnan().all()
    np.testing.assert_allclose(found[1].numpy(), np.eye(4), atol=1e-9)


def test_mismatched_shapes_are_refused():
    with pytest.raises(EstimationError, match="paired points"):
        kabsch(cloud(0, 4), cloud(0, 5))


def test_affine_is_recovered_and_equals_weighted_least_squares():
    rng = np.random.default_rng(14)
    moving, weights = cloud(14, 25), torch.as_tensor(rng.uniform(0.1, 2, 25))
    T = np.eye(4)
    T[:3] = np.hstack([np.eye(3) + 0.2 * rng.normal(size=(3, 3)), rng.normal(0, 30, (3, 1))])
    fixed = apply(T, moving)
    np.testing.assert_allclose(affine(fixed, moving, weights).numpy(), T, atol=1e-9)
    fixed = fixed + torch.as_tensor(rng.normal(0, 2, (25, 3)))
    root = weights.sqrt()[:, None].numpy()
    homogeneous = np.hstack([moving.numpy(), np.ones((25, 1))])
    expected, *_ = np.linalg.lstsq(root * homogeneous, root * fixed.numpy(), rcond=None)
    np.testing.assert_allclose(affine(fixed, moving, weights)[:3].T, expected, atol=1e-7)
