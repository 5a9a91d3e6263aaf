"""MIND-SSC and LC2 together, on images whose true motion is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.training import texture

from CrossKEYLib.config import JointConfig
from CrossKEYLib.estimation.feature_pair import FeaturePair
from CrossKEYLib.estimation.joint_refinement import JointObjective, refine_jointly
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.registration.features import SelfSimilarities

FEW = JointConfig(patches=300, patch_points=24)


@pytest.fixture(scope="module")
def mri() -> Volume:
    return texture(48, seed=3, grain=2.0)


@pytest.fixture(scope="module")
def ius(mri) -> Volume:
    """Bright where the MRI is dark or changes, with noise of its own."""
    slope = torch.stack(torch.gradient(mri.array)).norm(dim=0)
    noise = torch.randn(mri.shape, generator=torch.Generator().manual_seed(5))
    return mri.replaced((1.1 - mri.array + 2 * slope + 0.01 * noise).clamp_min(0.01))


def seen_from(mri: Volume, ius: Volume, start: Matrix) -> FeaturePair:
    return FeaturePair.of(SelfSimilarities(mri), ius, torch.empty(0, 3), start)


def objective_from(mri: Volume, ius: Volume, start: Matrix, config: JointConfig) -> JointObjective:
    made = JointObjective.of(mri, ius, seen_from(mri, ius, start), start, config)
    assert made is not None
    return made


def off_by(mri: Volume, seed: int, size: float) -> Matrix:
    return transform.random_rigid(np.random.default_rng(seed), size, size, mri.centre_ras)


def error(mri: Volume, matrix: Matrix) -> float:
    inside = mri.points_ras(torch.rand(300, 3) * 30 + 9).double()
    return transform.rms_displacement_mm(inside, np.eye(4), matrix)


def test_it_finds_the_way_back(mri, ius):
    start = off_by(mri, 2, 1.5)
    found = refine_jointly(mri, ius, seen_from(mri, ius, start), start, FEW)
    assert error(mri, start) > 1.0
    assert error(mri, found) < 0.2
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)


def test_each_part_alone_has_its_optimum_there_too(mri, ius):
    start = off_by(mri, 4, 1.0)
    for weight in (0.0, 1e3):
        objective = objective_from(mri, ius, start, replace(FEW, lc2_weight=weight))
        found = objective.matrix(objective.minimised(np.zeros(6)))
        assert error(mri, found) < 0.25


def test_what_lc2_explains_is_that_of_least_squares(mri, ius):
    """Against NumPy's solution in each patch, in float64; the ridge is small enough to leave."""
    objective = objective_from(mri, ius, np.eye(4), replace(FEW, ridge=1e-7))
    found, shown = objective._explained(objective.patches)
    assert int(shown.sum()) > 200
    channels = [Volume(channel, objective.ijk_to_ras) for channel in objective.channels[:-1]]
    for patch in shown.nonzero()[::29, 0].tolist():
        columns = [c.sample(objective.patches[patch]).double().numpy() for c in channels]
        basis = np.stack([*columns, np.ones(len(columns[0]))], 1)
        own = objective.intensity[patch].double().numpy()
        left = own - basis @ np.linalg.lstsq(basis, own, rcond=None)[0]
        assert float(found[patch]) == pytest.approx(1 - left @ left / (own @ own), abs=2e-3)


def test_the_slope_is_that_of_the_value(mri, ius):
    """The gradient that the search follows, against central differences."""
    objective = objective_from(mri, ius, off_by(mri, 6, 1.0), FEW)
    at = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective._value(at), at)
    step = 0.02
    for axis, want in zip(np.eye(6), slope.tolist(), strict=True):
        rise = objective.value(step * axis) - objective.value(-step * axis)
        assert rise / (2 * step) == pytest.approx(want, abs=0.1 * float(slope.abs().max()))


def test_what_the_halves_disagree_on_or_what_leads_far_is_not_taken(mri, ius):
    start = off_by(mri, 8, 1.0)
    seen = seen_from(mri, ius, start)
    for strict in (replace(FEW, agreement_mm=1e-6), replace(FEW, reach_mm=0.1)):
        assert refine_jointly(mri, ius, seen, start, strict) is start


def test_without_mri_beneath_the_start_is_kept(mri, ius):
    empty = mri.replaced(torch.zeros_like(mri.array))
    start = np.eye(4)
    assert refine_jointly(empty, ius, seen_from(empty, ius, start), start, FEW) is start
