"""How simulated ultrasound departs from the MRI: smooth, bounded, and drawn by the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.heads import probe_above

from CrossKEYLib.estimation.kabsch import kabsch
from CrossKEYLib.geometry.transform import apply
from CrossKEYLib.synthesis.deformation import MARGIN_MM, Deformation

SEEDS = range(12)


def drawn(seed: int) -> Deformation:
    return Deformation.draw(probe_above(), torch.Generator().manual_seed(seed))


def places(count: int = 4000) -> torch.Tensor:
    """Random RAS points in the probe's field of view."""
    grid = probe_above().grid(1.0)
    ijk = torch.rand(count, 3, generator=torch.Generator().manual_seed(9))
    ijk = ijk * (torch.tensor(grid.shape[::-1]) - 1)
    return apply(grid.ijk_to_ras, ijk)


def test_a_linear_displacement_is_read_exactly():
    grid = probe_above().grid(8.0)
    at = grid.points().double()
    linear = torch.tensor([[0.02, 0.0, 0.01], [0.0, -0.03, 0.0], [0.01, 0.02, 0.0]]).double()
    field = (at @ linear.T + 1).movedim(-1, 0).float()
    points = places()
    wanted = points.double() + points.double() @ linear.T + 1
    assert torch.allclose(
        Deformation(field, grid.ijk_to_ras).to_mri(points).double(), wanted, atol=1e-3
    )


def test_displacements_reach_some_millimetres_and_no_more():
    lengths = [float((drawn(seed).to_mri(places()) - places()).norm(dim=1).max()) for seed in SEEDS]
    assert max(lengths) < 16
    assert np.median(lengths) > 2
    assert max(lengths) > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_tissue_is_not_folded(seed):
    """The volume of small cubes stays between half and twice what it was."""
    made, at, edge = drawn(seed), places(500), 1.0
    moved = [(made.to_mri(at + edge * way) - made.to_mri(at)) / edge for way in torch.eye(3)]
    volumes = torch.linalg.det(torch.stack(moved, 2))
    assert float(volumes.min()) > 0.5
    assert float(volumes.max()) < 2


def test_no_rigid_motion_undoes_it():
    """Residuals of the best rigid fit: the least error that a rigid registration can reach."""
    left = []
    for seed in SEEDS:
        there = drawn(seed).to_mri(places())
        best = kabsch(there.double(), places().double()).numpy()
        left.append(float((apply(best, places()) - there).square().sum(1).mean().sqrt()))
    assert 0.4 < np.median(left) < 3


def test_the_generator_decides():
    assert torch.equal(drawn(1).displacement, drawn(1).displacement)
    assert not torch.equal(drawn(1).displacement, drawn(2).displacement)


def test_far_from_the_field_of_view_nothing_is_said():
    grid = probe_above().grid(1.0)
    corner = torch.as_tensor(grid.ijk_to_ras[:3, 3], dtype=torch.float32)
    away = torch.as_tensor(grid.ijk_to_ras[:3, :3] @ np.ones(3), dtype=torch.float32)
    far = (corner - (MARGIN_MM + 8) * away)[None]
    assert torch.equal(drawn(3).to_mri(far), far)
