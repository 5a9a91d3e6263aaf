"""Global estimation from mostly wrong matches, against known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.matches import as_points, place_right, simulate
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import EstimateConfig
from CrossKEYLib.errors import EstimationError, InputError
from CrossKEYLib.estimation import estimate_rigid, kabsch
from CrossKEYLib.estimation.ransac import independence
from CrossKEYLib.estimation.triplets import solve_triplets
from CrossKEYLib.geometry.transform import apply

CONFIG = EstimateConfig()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("share", "noise_mm"), [(0.05, 2.0), (0.06, 1.5)])
def test_few_right_matches_are_found(seed, share, noise_mm):
    matched = simulate(seed, share=share, noise_mm=noise_mm)
    result = estimate_rigid(matched.fixed, matched.moving, CONFIG, seeded(seed))
    assert result
    assert matched.tre(result.matrix) < 1.5
    assert (result.inliers & matched.right).sum() > 0.8 * result.n_inliers
    assert result.n_inliers == int(result.inliers.sum())


def test_exact_matches_give_the_exact_transform():
    matched = simulate(0, count=60, share=1.0, noise_mm=0.0)
    result = estimate_rigid(matched.fixed, matched.moving, CONFIG, seeded())
    assert result.matrix is not None
    assert result.matrix.dtype == np.float64
    np.testing.assert_allclose(result.matrix, matched.T_fixed_moving, atol=1e-4)
    assert result.inliers.all()
    assert result.rms_mm < 1e-4


def test_inliers_and_rms_are_those_of_the_returned_matrix():
    matched = simulate(1, share=0.3)
    result = estimate_rigid(matched.fixed, matched.moving, CONFIG, seeded())
    assert result.matrix is not None
    residuals = (apply(result.matrix, matched.moving.double()) - matched.fixed).norm(dim=1)
    assert torch.equal(result.inliers, residuals <= CONFIG.inlier_threshold_mm)
    assert result.rms_mm == pytest.approx(residuals[result.inliers].square().mean().sqrt().item())


def test_same_seed_same_result():
    matched = simulate(2, count=800)
    scores = torch.rand(800, generator=seeded())
    a, b, c = (
        estimate_rigid(matched.fixed, matched.moving, CONFIG, seeded(s), scores) for s in (3, 3, 4)
    )
    assert a.matrix is not None
    np.testing.assert_array_equal(a.matrix, b.matrix)
    assert matched.tre(a.matrix) == pytest.approx(matched.tre(c.matrix), abs=0.3)


def test_a_dense_clump_of_wrong_matches_does_not_outvote_spread_right_ones():
    matched = simulate(3, count=600, share=0.1, noise_mm=1.0)  # 60 right ones
    rng = np.random.default_rng(3)
    wrong = torch.nonzero(~matched.right).squeeze(1)[:300]
    spots = rng.uniform(-12, 12, (6, 3)).repeat(50, 0) + rng.normal(0, 0.5, (300, 3))
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    matched.moving[wrong] = as_points(spots + np.array([30, -40, 50]))
    matched.fixed[wrong] = as_points(spots @ turn.T + np.array([90, 20, -10]))
    result = estimate_rigid(matched.fixed, matched.moving, CONFIG, seeded())
    assert matched.tre(result.matrix) < 1.5


@pytest.mark.parametrize(
    ("count", "reason"), [(0, "only 0 matches"), (4, "only 4 matches"), (40, "matches agree")]
)
def test_failure_is_false_with_a_reason_and_no_matrix(count, reason):
    rng = np.random.default_rng(0)
    fixed, moving = as_points(rng.uniform(-70, 70, (2, count, 3)))
    result = estimate_rigid(fixed, moving, replace(CONFIG, inlier_threshold_mm=0.5), seeded())
    assert not result
    assert result.matrix is None
    assert reason in (result.reason or "")
    assert result.inliers.shape == (count,)
    assert not result.inliers.any()
    assert result.rms_mm is None


def test_matches_along_a_line_give_no_transform():
    points = as_points(np.linspace(0, 60, 50)[:, None] * np.array([1.0, 0.5, -1]))
    points += 0.5 * torch.randn(50, 3, generator=seeded())
    assert not estimate_rigid(points, points, replace(CONFIG, hypotheses=2000), seeded())


def test_affine_finds_the_scale_that_rigid_cannot():
    matched = simulate(4, share=0.4, noise_mm=0.5)
    matched.T_fixed_moving = matched.T_fixed_moving @ np.diag([1.06, 0.95, 1.0, 1.0])
    place_right(matched, matched.moving[matched.right], np.random.default_rng(4), 0.5)
    found = {}
    for kind in ("rigid", "affine"):
        config = replace(CONFIG, transform=kind)
        result = estimate_rigid(matched.fixed, matched.moving, config, seeded())
        found[kind] = matched.tre(result.matrix)
    assert found["affine"] < 0.4
    assert found["rigid"] > 2 * found["affine"]


def test_bad_arguments_are_refused():
    points = torch.zeros(10, 3)
    with pytest.raises(EstimationError, match="paired points"):
        estimate_rigid(points, points[:9], CONFIG, seeded())
    with pytest.raises(InputError, match="transform: expected rigid or affine, got 'spline'"):
        estimate_rigid(points, points, replace(CONFIG, transform="spline"), seeded())


def test_triangles_are_solved_as_least_squares_would():
    fixed, moving = 30 * torch.randn(2, 40, 3, 3, generator=seeded(), dtype=torch.float64)
    np.testing.assert_allclose(solve_triplets(fixed, moving), kabsch(fixed, moving), atol=1e-9)


def test_duplicates_count_once_and_distant_matches_fully():
    points = torch.tensor([[0.0, 0, 0]] * 4 + [[100.0, 0, 0]])
    torch.testing.assert_close(
        independence(points, points, 5.0), torch.tensor([0.25, 0.25, 0.25, 0.25, 1.0])
    )
    apart = points.clone()
    apart[:4, 1] = 100 * torch.arange(4.0)  # near on one side only: different observations
    torch.testing.assert_close(independence(apart, points, 5.0), torch.ones(5))
