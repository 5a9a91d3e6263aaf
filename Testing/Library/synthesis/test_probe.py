from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.heads import CENTRE, ball_distance, grid_around, mottled, probe_above

from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.synthesis.anatomy import Anatomy, read_anatomy
from CrossKEYLib.synthesis.probe import Probe

RADIUS_MM = 40.0
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def brain() -> Anatomy:
    """A ball in air."""
    grid = grid_around(CENTRE, np.diag([-2.0, 2.0, 2.0]), 120)
    array = torch.where(ball_distance(grid.points()) < RADIUS_MM, mottled(grid), 0.0)
    return read_anatomy([Volume(array, grid.ijk_to_ras)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(brain: Anatomy, count: int = 60) -> list[Probe]:
    source = generator()
    return [Probe.draw(brain, source) for _ in range(count)]


def test_probes_sit_on_the_brain_and_look_into_it(brain):
    for probe in drawn(brain):
        rotation, origin = probe.local_to_ras[:3, :3], probe.local_to_ras[:3, 3]
        assert np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) > 0
        assert RADIUS_MM - 9 < np.linalg.norm(origin - CENTRE) < RADIUS_MM + 12
        inwards = (CENTRE - origin) / np.linalg.norm(CENTRE - origin)
        assert rotation[:, 2] @ inwards > 0.3


def test_poses_and_sizes_differ(brain):
    probes = drawn(brain)
    directions = np.stack([p.local_to_ras[:3, 2] for p in probes])
    assert np.linalg.matrix_rank(directions.T @ directions / len(probes), tol=0.1) == 3
    for name, low, high in (("width_mm", 25, 60), ("sweep_mm", 35, 75), ("depth_mm", 40, 80)):
        sizes = np.array([getattr(p, name) for p in probes])
        assert low <= sizes.min() < low + 0.25 * (high - low)
        assert high - 0.25 * (high - low) < sizes.max() <= high


def test_equal_seeds_give_equal_probes(brain):
    a, b, c = (Probe.draw(brain, generator(seed)) for seed in (4, 4, 5))
    assert np.array_equal(a.local_to_ras, b.local_to_ras)
    assert a.depth_mm == b.depth_mm
    assert not np.allclose(a.local_to_ras, c.local_to_ras)


@pytest.mark.parametrize("spacing", [0.5, 2.0])
def test_grid_axes_are_lateral_elevation_depth(spacing):
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    axes[:, 0] *= np.linalg.det(axes)
    probe = probe_above(axes, apex_mm=50.0)
    grid = probe.grid(spacing)
    step = grid.ijk_to_ras[:3, :3] / spacing
    assert np.allclose(step, axes)  # i lateral, j elevation, k depth
    k, j, i = grid.shape
    face = grid.ijk_to_ras @ [(i - 1) / 2, (j - 1) / 2, 0, 1]
    assert np.allclose(face[:3], probe.local_to_ras[:3, 3], atol=spacing)
    assert (k - 1) * spacing == pytest.approx(probe.depth_mm, abs=spacing)
    assert (j - 1) * spacing == pytest.approx(probe.sweep_mm, abs=spacing)
    far_width = probe.width_mm * (1 + probe.depth_mm / probe.apex_mm)
    assert (i - 1) * spacing == pytest.approx(far_width, abs=spacing)


def view_of(probe: Probe, seed: int = 0) -> np.ndarray:
    return probe.field_of_view(probe.grid(1.0), generator(seed), CPU).numpy()


def test_fan_widens_and_slab_does_not():
    for apex, ratio in ((40.0, 1 + 30 / 45), (1e5, 1.0)):
        view = view_of(probe_above(apex_mm=apex))
        near, far = view[5].sum(1).mean(), view[35].sum(1).mean()
        assert far / near == pytest.approx(ratio, rel=0.1)


def test_frames_are_ragged():
    view = view_of(probe_above())
    ends = view[10].sum(1)
    assert len(np.unique(ends[ends > 0])) > 3


def test_some_sweeps_miss_frames():
    """About 15 %; a gap between frames that are there."""
    gaps = 0
    for seed in range(120):
        there = view_of(probe_above(), seed).any((0, 2))
        gaps += not there[there.argmax() : len(there) - there[::-1].argmax()].all()
    assert 8 <= gaps <= 30
