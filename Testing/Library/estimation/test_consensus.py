"""Matches that support each other: right ones lead, whatever the orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from CrossKEYLib.config import ConsensusConfig
from CrossKEYLib.estimation.consensus import strongest, support_of, supported
from CrossKEYLib.estimation.matching import Matches
from CrossKEYLib.geometry import transform

CONFIG = ConsensusConfig()


def scene(
    right: int, wrong: int, angle_deg: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fixed and moving ends of matches, the right ones first, and which are right."""
    generator = torch.Generator().manual_seed(seed)
    moving = 60 * torch.rand(right + wrong, 3, generator=generator)
    motion = transform.random_rigid(np.random.default_rng(seed), 20.0, angle_deg, np.full(3, 30.0))
    fixed = transform.apply(motion, moving)
    fixed = fixed + 0.5 * torch.randn(fixed.shape, generator=generator)
    fixed[right:] = 120 * torch.rand(wrong, 3, generator=generator) - 30
    return fixed, moving, torch.arange(right + wrong) < right


@pytest.mark.parametrize("angle_deg", [0.0, 40.0, 170.0])
def test_a_tenth_of_right_matches_leads(angle_deg: float) -> None:
    fixed, moving, right = scene(100, 900, angle_deg)
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(1))  # tell nothing
    best = strongest(fixed, moving, scores, CONFIG)[:100]
    assert float(right[best].float().mean()) > 0.95


def test_support_is_the_first_eigenvector_of_the_agreements() -> None:
    fixed, moving, _ = scene(20, 30, 20.0)
    config = replace(CONFIG, iterations=200)
    found = support_of(fixed, moving, torch.ones(50), config).double()
    f, m = fixed.double().numpy(), moving.double().numpy()
    agree = np.zeros((50, 50))
    for i in range(50):
        for j in range(50):
            apart = np.linalg.norm(m[i] - m[j])
            off = np.linalg.norm(f[i] - f[j]) - apart
            if apart >= config.nearest_mm:
                agree[i, j] = max(0.0, 1 - (off / config.edge_tolerance_mm) ** 2)
                agree[i, j] *= np.exp(-0.5 * (apart / config.reach_mm) ** 2)
    values, vectors = np.linalg.eigh(agree)
    expected = np.abs(vectors[:, -1])
    assert values[-1] > values[-2]
    np.testing.assert_allclose(found, expected / expected.max(), atol=0.02)


def test_matches_of_one_spot_do_not_support_each_other() -> None:
    fixed, moving, _ = scene(12, 0, 10.0)
    spot = 0.1 * torch.randn(200, 3, generator=torch.Generator().manual_seed(2))
    fixed, moving = torch.cat([fixed, spot + 90]), torch.cat([moving, spot - 40])
    support = support_of(fixed, moving, torch.ones(212), CONFIG)
    assert float(support[:12].min()) > float(support[12:].max())


def test_a_share_of_the_matches_is_kept_best_first() -> None:
    fixed, moving, right = scene(300, 1500, 30.0)
    rows = torch.arange(1800)
    scores = torch.linspace(1, 0.5, 1800)
    found = supported(fixed, moving, Matches(torch.stack([rows, rows], 1), scores), CONFIG)
    assert len(found) == 600
    assert bool((found.scores.diff() <= 0).all())
    assert float(found.scores[0]) == 1
    assert bool(right[found.indices[:, 0]][:200].all())


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_matches_are_all_kept(count: int) -> None:
    fixed, moving, _ = scene(count, 0, 5.0)
    rows = torch.arange(count)
    found = supported(fixed, moving, Matches(torch.stack([rows, rows], 1), rows * 0.1), CONFIG)
    assert sorted(found.indices[:, 0].tolist()) == rows.tolist()
    assert bool(found.scores.isfinite().all())
