"""Matches and descriptors together: descriptors decide where matches alone would be misled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from phantoms.matches import CENTRE, Matched, simulate

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
    """60 matches obey the truth, 60 another transform, and 180 none."""
    matched = simulate(0, count=300, share=0.2, noise_mm=0.5)
    other = transform.random_rigid(np.random.default_rng(1), 25.0, 20.0, CENTRE)
    other = other @ matched.T_fixed_moving
    wrong = torch.nonzero(~matched.right).squeeze(1)[:60]
    noise = 0.5 * torch.randn(60, 3, generator=seeded())
    matched.fixed[wrong] = transform.apply(other, matched.moving[wrong]) + noise
    return matched, other


def score_of(matrix: np.ndarray) -> DescriptorScore:
    """Points on a grid of 2 mm in the MRI, and some in the iUS, described alike under a transform
    from iUS to MRI."""
    axis = torch.arange(-36.0, 37.0, 2.0)
    around = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    goal = transform.apply(matrix, torch.as_tensor(CENTRE[None]).float())
    source = torch.Generator().manual_seed(1)
    points = 40 * torch.rand(1000, 3, generator=source) - 20 + torch.as_tensor(CENTRE).float()
    places = around + goal
    own = described(transform.apply(matrix, points))
    return DescriptorScore(DescriptorGrid(places, described(places)), points, own)


def test_descriptors_decide_between_places_that_as_many_matches_support():
    """The same matches lead to either place, as the descriptors say."""
    matched, other = rivals()
    for place in (matched.T_fixed_moving, other):
        score = score_of(place)
        found = locate(matched.fixed, matched.moving, CONFIG, seeded(), descriptor_score=score)
        assert found.matrix is not None
        assert transform.rms_displacement_mm(matched.fov.double(), found.matrix, place) < 1.0
        assert found.n_inliers >= 55


def test_an_affine_transform_is_fitted_to_the_matches_at_the_chosen_place():
    matched, _ = rivals()
    config = replace(CONFIG, transform="affine")
    found = locate(
        matched.fixed, matched.moving, config, seeded(), None, score_of(matched.T_fixed_moving)
    )
    assert found.matrix is not None
    assert matched.tre(found.matrix) < 1.0
    stretched = found.matrix[:3, :3].T @ found.matrix[:3, :3]
    assert np.abs(stretched - np.eye(3)).max() > 1e-6  # not rigid to the last digit


def test_too_few_matches_are_told_whether_or_not_there_are_descriptors():
    matched, _ = rivals()
    for score in (None, score_of(matched.T_fixed_moving)):
        found = locate(
            matched.fixed[:4], matched.moving[:4], CONFIG, seeded(), descriptor_score=score
        )
        assert not found
        assert found.reason == "only 4 matches, at least 5 are needed"
