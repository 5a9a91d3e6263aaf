"""Fixed-point matching where the truth is known: made-up descriptors on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import FixedPointConfig
from CrossKEYLib.errors import EstimationError
from CrossKEYLib.estimation.matching import most_similar
from CrossKEYLib.geometry import transform
from CrossKEYLib.landmarks.fixed_point import fixed_point, nearest
from CrossKEYLib.models.described import Described

CONFIG = FixedPointConfig()
SIZE = 24  # places a side, 2 mm apart


def code(points: torch.Tensor, dims: int = 48, wavelength_mm: float = 14.0) -> torch.Tensor:
    """Descriptors that vary smoothly over space: random waves of the position."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(3, dims, generator=generator) * 2 * np.pi / wavelength_mm
    phases = 2 * np.pi * torch.rand(dims, generator=generator)
    return F.normalize(torch.cos(points @ waves + phases), dim=1)


def grid(size: int = SIZE) -> torch.Tensor:
    line = torch.arange(size, dtype=torch.float32) * 2 - size
    return torch.cartesian_prod(line, line, line)


def noisy(described: torch.Tensor, amount: float, seed: int) -> torch.Tensor:
    noise = torch.randn(described.shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(described + amount * F.normalize(noise, dim=1), dim=1)


TRUTH = transform.from_parts(
    Rotation.from_euler("xyz", [12, -9, 15], degrees=True).as_matrix() @ np.diag([1.06, 0.95, 1.0]),
    [3.0, -2.0, 4.0],
)


def pair(noise: float = 0.0) -> tuple[Described, Described]:
    """An image, and the same anatomy moved by TRUTH and sampled on a grid of its own."""
    here, there = grid(), grid(SIZE + 4)
    origin = transform.apply(transform.invert(TRUTH), there)
    return (
        Described(here, noisy(code(here), noise, 1)),
        Described(there, noisy(code(origin), noise, 2)),
    )


def queries(count: int = 12, seed: int = 3) -> torch.Tensor:
    return 24 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 12


def test_both_find_the_place_without_noise():
    here, there = pair()
    wanted = queries()
    truth = transform.apply(TRUTH, wanted)
    alone = nearest(wanted, code(wanted), here, there)
    assert ((alone.points - truth).norm(dim=1) <= 3**0.5 + 0.7).all()  # half a cell's diagonal
    together = fixed_point(wanted, code(wanted), here, there)
    assert (together.points - truth).norm(dim=1).max() < 0.8  # the fit undoes the rounding
    assert together.scores.min() > 0.8
    assert together.spreads.max() < 2


def test_fixed_points_bear_what_the_nearest_neighbour_cannot():
    here, there = pair(noise=0.8)
    wanted = queries(40)
    truth = transform.apply(TRUTH, wanted)
    described = noisy(code(wanted), 0.8, 5)
    alone, together = (f(wanted, described, here, there) for f in (nearest, fixed_point))
    errors = [(found.points - truth).norm(dim=1) for found in (alone, together)]
    assert errors[0].mean() > 2.0
    assert errors[1].mean() < 0.5 * errors[0].mean()
    assert errors[1].quantile(0.95) < 3.0


def test_spread_and_score_tell_good_from_bad():
    wanted = queries(30)
    good, bad = (
        fixed_point(wanted, noisy(code(wanted), noise, 5), *pair(noise)) for noise in (0.2, 1.5)
    )
    assert good.scores.mean() > bad.scores.mean() + 0.2
    assert good.spreads.median() < bad.spreads.median()


def test_queries_do_not_influence_each_other():
    here, there = pair(noise=0.6)
    wanted = queries(9)
    described = noisy(code(wanted), 0.6, 5)
    together = fixed_point(wanted, described, here, there)
    for n in (0, 4, 8):
        single = fixed_point(wanted[n : n + 1], described[n : n + 1], here, there)
        for a, b in zip(together, single, strict=True):
            torch.testing.assert_close(a[n : n + 1], b, atol=1e-3, rtol=1e-3)


def test_a_wrong_pair_does_not_bend_the_fit():
    """One structure at the wrong side of the image: fixed points there are voted down."""
    here, there = pair()
    wanted = queries(5)
    near = (here.points - wanted[0]).norm(dim=1) < 5
    broken = here.descriptors.clone()
    broken[near] = code(-here.points[near] + 5)
    found = fixed_point(wanted, code(wanted), Described(here.points, broken), there)
    truth = transform.apply(TRUTH, wanted)
    assert (found.points - truth)[0].norm() < 2.5


def test_too_few_pairs_leave_the_nearest_neighbour():
    here, there = pair()
    wanted = queries(6)
    config = replace(CONFIG, fewest=10_000)
    alone = nearest(wanted, code(wanted), here, there)
    answer = fixed_point(wanted, code(wanted), here, there, config)
    for a, b in zip(answer[:3], alone[:3], strict=True):
        assert torch.equal(a, b)
    assert not answer.settled.any()
    lonely = queries(1) + 500  # no place around it at all
    found = fixed_point(lonely, code(lonely), here, there)
    assert found.points.isfinite().all()


def test_the_way_back_measures_the_nearest_neighbour():
    points = torch.tensor([[0.0, 0, 0], [30.0, 0, 0]])
    here = Described(points, torch.eye(3)[:2])
    there = Described(points + 1, F.normalize(torch.tensor([[1.0, 0.1, 0], [0.9, 0.5, 0]]), dim=1))
    found = nearest(points, here.descriptors, here, there)
    torch.testing.assert_close(found.points, there.points)
    assert found.spreads.tolist() == pytest.approx([0, 30])


def test_search_in_tiles_equals_search_at_once(monkeypatch):
    pool, wanted = code(grid(8)), code(queries(7))
    whole = (wanted @ pool.T).max(1)
    monkeypatch.setattr("CrossKEYLib.estimation.matching._TILE_ELEMENTS", 100)
    values, index = most_similar(wanted, pool)
    torch.testing.assert_close(values, whole.values)
    assert torch.equal(index, whole.indices)


def test_what_cannot_be_asked():
    here, there = pair()
    with pytest.raises(EstimationError, match=r"points \[N, 3\] expected, got \[3\]"):
        nearest(torch.zeros(3), code(queries(1)), here, there)
    with pytest.raises(EstimationError, match="described places"):
        fixed_point(
            queries(1), code(queries(1)), Described(here.points[:0], here.descriptors[:0]), there
        )
