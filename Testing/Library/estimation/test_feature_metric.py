"""Feature-metric refinement on maps whose true motion is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CrossKEYLib.config import FeatureMetricConfig
from CrossKEYLib.descriptors.dense import FeatureMap
from CrossKEYLib.estimation import refine_features
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian

CELLS, CELL_MM, DIMS = 36, 2.0, 12
AFFINE = np.diag([CELL_MM, CELL_MM, CELL_MM, 1.0])
CENTRE = np.full(3, CELLS * CELL_MM / 2)
COUNT = 1500


def smooth_noise(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    field = gaussian(torch.randn(DIMS, CELLS, CELLS, CELLS, generator=generator), 2.0)
    return field / field.std()


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return smooth_noise(0)


def points(seed: int = 0) -> torch.Tensor:
    """In the middle of the map, where every small motion keeps them inside."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(COUNT, 3, generator=generator) * 40 + 16


def motion(seed: int, translation_mm: float, angle_deg: float) -> np.ndarray:
    return transform.random_rigid(np.random.default_rng(seed), translation_mm, angle_deg, CENTRE)


def rms_displacement_mm(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (transform.apply(m, points().double()) for m in (a, b))
    return float((first - second).norm(dim=1).mean())


def moved_map(array: torch.Tensor, truth: np.ndarray) -> FeatureMap:
    """The same samples in a moving world: ``truth`` maps its points to the fixed ones."""
    return FeatureMap(array, transform.invert(truth) @ AFFINE)


@pytest.mark.parametrize("size", [(0.0, 3.0), (2.0, 0.0), (3.0, 5.0)])
def test_a_small_motion_is_recovered(features, size):
    truth = motion(1, *size)
    fit = refine_features(
        FeatureMap(features, AFFINE), moved_map(features, truth), points(), np.eye(4)
    )
    assert fit
    assert rms_displacement_mm(fit.matrix, truth) < 0.1
    assert fit.gain > 0.005
    assert fit.moved_mm == pytest.approx(rms_displacement_mm(np.eye(4), truth), rel=0.2)


def test_features_that_only_partly_agree_and_outliers_suffice(features):
    """A constant other share in every vector, as between modalities, and a third of noise."""
    truth = motion(2, 2.0, 4.0)
    other = features + 1.0 * smooth_noise(7)
    other[:, :, :, : CELLS // 3] = smooth_noise(8)[:, :, :, : CELLS // 3]
    fit = refine_features(
        FeatureMap(features, AFFINE), moved_map(other, truth), points(), np.eye(4)
    )
    assert fit
    assert rms_displacement_mm(fit.matrix, truth) < 0.6
    assert 0.02 < fit.uncertainty_mm < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_left_alone(features, seed):
    start = motion(3, 20.0, 15.0)
    fit = refine_features(
        FeatureMap(features, AFFINE), moved_map(features, start), points(seed), start
    )
    assert not fit
    assert np.array_equal(fit.matrix, start)
    assert fit.moved_mm < 0.05
    assert fit.uncertainty_mm < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_features_that_have_nothing_in_common_improve_nothing(features, seed):
    fit = refine_features(
        FeatureMap(features, AFFINE), FeatureMap(smooth_noise(20 + seed), AFFINE), points(),
        np.eye(4),
    )  # fmt: skip
    assert not fit
    assert np.array_equal(fit.matrix, np.eye(4))


def test_a_way_beyond_the_reach_is_no_refinement(features):
    truth = motion(4, 3.0, 3.0)
    config = FeatureMetricConfig(reach_mm=1.0)
    fit = refine_features(
        FeatureMap(features, AFFINE), moved_map(features, truth), points(), np.eye(4), config
    )
    assert not fit
    assert fit.moved_mm > 1.0


def test_a_free_direction_is_uncertain():
    """Features that change along one axis alone fix neither the other shifts nor the turn."""
    line = smooth_noise(5)[:, :1, :1, :].expand(-1, CELLS, CELLS, -1).contiguous()
    there = FeatureMap(line, AFFINE)
    fit = refine_features(there, there, points(), np.eye(4))
    assert not fit
    assert np.linalg.eigvalsh(fit.curvature)[0] < 1e-3 * np.linalg.eigvalsh(fit.curvature)[-1]


def test_the_uncertainty_is_of_the_size_of_the_error(features):
    """Independent noise in both maps: the mean error over draws against the mean forecast."""
    errors, forecasts = [], []
    for seed in range(4):
        truth = motion(10 + seed, 1.0, 2.0)
        other = features + 0.8 * smooth_noise(30 + seed)
        fit = refine_features(
            FeatureMap(features, AFFINE), moved_map(other, truth), points(seed), np.eye(4)
        )
        errors.append(rms_displacement_mm(fit.matrix, truth))
        forecasts.append(fit.uncertainty_mm)
    assert 0.4 < np.mean(errors) / np.mean(forecasts) < 2.5
