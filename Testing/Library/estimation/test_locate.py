"""Matches and descriptors together: descriptors decide where matches alone would be misled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms.matches import CENTRE, Matched, fov_grid, simulate

from CrossKEYLib.config import EstimateConfig
from CrossKEYLib.estimation import DescriptorGrid, DescriptorScore, locate
from CrossKEYLib.geometry import transform

CONFIG = EstimateConfig(hypotheses=4000)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def described(points: torch.Tensor) -> torch.Tensor:
    """Descriptors ``[N, 16]`` that change smoothly over some 10 mm, and never repeat."""
    source = torch.Generator().manual_seed(0)
    waves, phases = torch.randn(3, 16, generator=source) / 6, 6 * torch.rand(16, generator=source)
    return F.normalize(torch.sin(points @ waves + phases), dim=1)


def rivals() -> tuple[Matched, np.ndarray]:
    """60 matches obey the truth, 120 another transform, and 120 none."""
    matched = simulate(0, count=300, share=0.2, noise_mm=0.5)
    other = transform.random_rigid(np.random.default_rng(1), 25.0, 20.0, CENTRE)
    other = other @ matched.T_fixed_moving
    wrong = torch.nonzero(~matched.right).squeeze(1)[:120]
    matched.fixed[wrong] = transform.apply(other, matched.moving[wrong])
    return matched, other


def score_of(matched: Matched) -> DescriptorScore:
    """The MRI around the truth on a grid of 2 mm, described alike in both images."""
    axis = torch.arange(-36.0, 37.0, 2.0)
    around = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    goal = transform.apply(matched.T_fixed_moving, fov_grid()).mean(0)
    places, points = around + goal, fov_grid()
    own = described(transform.apply(matched.T_fixed_moving, points))
    return DescriptorScore(DescriptorGrid(places, described(places)), points, own)


def test_descriptors_outvote_matches_that_err_together():
    matched, other = rivals()
    alone = locate(matched.fixed, matched.moving, CONFIG, seeded())
    assert alone.matrix is not None
    assert transform.rms_displacement_mm(matched.fov.double(), alone.matrix, other) < 1.0
    decided = locate(
        matched.fixed, matched.moving, CONFIG, seeded(), descriptor_score=score_of(matched)
    )
    assert matched.tre(decided.matrix) < 1.0
    assert decided.n_inliers == pytest.approx(60, abs=6)


def test_an_affine_transform_is_fitted_to_the_matches_at_the_chosen_place():
    matched, _ = rivals()
    config = replace(CONFIG, transform="affine")
    found = locate(matched.fixed, matched.moving, config, seeded(), None, score_of(matched))
    assert found.matrix is not None
    assert matched.tre(found.matrix) < 1.0
    stretched = found.matrix[:3, :3].T @ found.matrix[:3, :3]
    assert np.abs(stretched - np.eye(3)).max() > 1e-6  # not rigid to the last digit


def test_too_few_matches_are_told_whether_or_not_there_are_descriptors():
    matched, _ = rivals()
    for score in (None, score_of(matched)):
        found = locate(
            matched.fixed[:4], matched.moving[:4], CONFIG, seeded(), descriptor_score=score
        )
        assert not found
        assert found.reason == "only 4 matches, at least 5 are needed"
