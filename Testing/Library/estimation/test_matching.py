"""Matching against a brute-force reference, and each test on cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from CrossKEYLib.config import MatchConfig
from CrossKEYLib.errors import EstimationError
from CrossKEYLib.estimation import matching
from CrossKEYLib.estimation.matching import Prior, match
from CrossKEYLib.geometry.transform import apply, random_rigid

NEAREST = MatchConfig(method="nearest")


def random_sides(seed: int, m: int, n: int, d: int = 8):
    generator = torch.Generator().manual_seed(seed)
    descriptors = [torch.randn(k, d, generator=generator) for k in (m, n)]
    points = [60 * torch.rand(k, 3, generator=generator) for k in (m, n)]
    return *(torch.nn.functional.normalize(x, dim=1) for x in descriptors), *points


def pairs(matches) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in matches.indices}


@pytest.fixture(params=[100, 12_000_000], ids=["tiny tiles", "one tile"])
def _tiles(request, monkeypatch):
    monkeypatch.setattr(matching, "_TILE_ELEMENTS", request.param)


def reference(sides, config: MatchConfig) -> set[tuple[int, int]]:
    """The definition, one match at a time, in float64."""
    fixed, moving, points_fixed, points_moving = (x.double().numpy() for x in sides)
    similarity = moving @ fixed.T
    kept = set()
    for j, row in enumerate(similarity):
        i = int(row.argmax())
        back = int(similarity[:, i].argmax())
        if config.method in ("mutual", "ratio") and back != j:
            continue
        way = np.linalg.norm(points_moving[back] - points_moving[j])
        if config.method == "cycle" and way > config.cycle_tolerance_mm:
            continue
        if config.method == "ratio":
            apart = np.linalg.norm(points_fixed - points_fixed[i], axis=1)
            second = row[apart > config.second_best_radius_mm].max()
            if np.sqrt(2 - 2 * row[i]) >= config.ratio * np.sqrt(2 - 2 * second):
                continue
        kept.add((i, j))
    return kept


def score_ratio(sides, matches, config: MatchConfig) -> torch.Tensor:
    """One less the distance of each match over that of the best place away from it, in float64."""
    fixed, moving, points_fixed, _ = (x.double() for x in sides)
    similarity = moving @ fixed.T
    found = []
    for i, j in matches.indices.tolist():
        away = (points_fixed - points_fixed[i]).norm(dim=1) > config.second_best_radius_mm
        best, rival = similarity[j, i], similarity[j][away].max()
        found.append(1 - ((2 - 2 * best) / (2 - 2 * rival)).sqrt())
    return torch.stack(found).float()


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("method", ["nearest", "mutual", "ratio", "cycle"])
def test_methods_equal_their_definition(method):
    sides = random_sides(0, 150, 90)
    config = MatchConfig(
        method=method, ratio=0.9, second_best_radius_mm=12.0, cycle_tolerance_mm=20.0
    )
    matches = match(*sides, config)
    assert pairs(matches) == reference(sides, config)
    assert 0 < len(matches) <= 90
    assert matches.indices.dtype == torch.int64
    torch.testing.assert_close(
        matches.scores, score_ratio(sides, matches, config), atol=1e-4, rtol=0
    )
    assert (matches.scores.diff() <= 0).all()


def test_neighbours_of_the_best_are_no_rivals():
    fixed = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1, 0.12], [0, 1]]), dim=1)
    moving = torch.tensor([[1.0, 0.0]])
    where, origin = torch.tensor([[0.0, 0, 0], [2, 0, 0], [40, 0, 0]]), torch.zeros(1, 3)
    config = MatchConfig(method="ratio", ratio=0.8, second_best_radius_mm=5.0)
    assert pairs(match(fixed, moving, where, origin, config)) == {(0, 0)}
    strict = replace(config, second_best_radius_mm=1.0)
    assert len(match(fixed, moving, where, origin, strict)) == 0


def test_a_single_candidate_has_no_rival():
    one, point = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 3)
    alone = match(one, one, point, point, MatchConfig(method="ratio"))
    assert alone.scores.tolist() == [1.0]  # nothing can stand out more


def test_what_stands_out_comes_before_what_looks_alike():
    """A place that looks like another one, however exactly, says less than one of its kind."""
    fixed = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.01], [0, 1]]), dim=1)
    where = torch.tensor([[0.0, 0, 0], [30, 0, 0], [60, 0, 0]])
    moving = torch.nn.functional.normalize(torch.tensor([[1.0, 0.004], [0.3, 1.0]]), dim=1)
    matches = match(fixed, moving, where, torch.zeros(2, 3), NEAREST)
    assert matches.indices.tolist() == [[2, 1], [0, 0]]
    torch.testing.assert_close(matches.scores[1], torch.tensor(1 / 3), atol=0.02, rtol=0)
    alike = match(fixed, moving, where, torch.zeros(2, 3), replace(NEAREST, rank="similarity"))
    assert alike.indices.tolist() == [[0, 0], [2, 1]]
    torch.testing.assert_close(alike.scores, torch.tensor([1.0, 1 / 1.09**0.5]))


def test_rivals_are_sought_in_a_part_of_many_places(monkeypatch):
    sides = random_sides(5, 400, 30)
    everything = match(*sides, NEAREST)
    monkeypatch.setattr(matching, "_RIVALS", 100)
    some = match(*sides, NEAREST)
    assert pairs(some) == pairs(everything)
    assert (some.scores.sort().values >= everything.scores.sort().values - 1e-6).all()


def test_only_the_best_are_kept():
    sides = random_sides(1, 80, 50)
    everything = match(*sides, NEAREST)
    best = match(*sides, replace(NEAREST, max_matches=7))
    assert torch.equal(best.indices, everything.indices[:7])


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("method", ["nearest", "mutual", "ratio", "cycle"])
def test_prior_confines_matches_and_finds_what_is_inside(method):
    fixed, _, points_fixed, _ = random_sides(2, 300, 1, d=3)  # three dimensions: many look-alikes
    T = random_rigid(np.random.default_rng(2), 20, 30, (30, 30, 30))
    points_moving = apply(np.linalg.inv(T), points_fixed)
    noisy = torch.nn.functional.normalize(fixed + 0.05, dim=1)[:120]
    sides = (fixed, noisy, points_fixed, points_moving[:120])
    prior = Prior(T, 6.0)
    config = MatchConfig(method=method, ratio=0.95)
    found, free = match(*sides, config, prior).indices, match(*sides, config).indices
    apart = (points_fixed[found[:, 0]] - points_fixed[found[:, 1]]).norm(dim=1)
    assert apart.max() <= 6.0
    right, right_free = (found[:, 0] == found[:, 1]).sum(), (free[:, 0] == free[:, 1]).sum()
    assert right > max(50, right_free)


@pytest.mark.parametrize("method", ["mutual", "cycle"])
def test_prior_also_confines_the_way_back(method):
    fixed = torch.tensor([[1.0, 0.0]])
    moving = torch.nn.functional.normalize(torch.tensor([[1.0, 0.3], [1.0, 0.0]]), dim=1)
    where, origin = torch.tensor([[0.0, 0, 0], [50, 0, 0]]), torch.zeros(1, 3)
    config = MatchConfig(method=method)
    assert (0, 0) not in pairs(match(fixed, moving, origin, where, config))
    assert pairs(match(fixed, moving, origin, where, config, Prior(np.eye(4), 10.0))) == {(0, 0)}


def test_prior_far_from_everything_gives_no_match():
    sides = random_sides(3, 20, 10)
    away = np.eye(4)
    away[:3, 3] = 1000
    matches = match(*sides, NEAREST, Prior(away, 10.0))
    assert matches.indices.shape == (0, 2)
    assert matches.scores.shape == (0,)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("prior", [None, Prior(np.eye(4), 5.0)])
def test_nothing_to_match_is_an_answer(m, n, prior):
    assert match(*random_sides(4, m, n), MatchConfig(), prior).indices.shape == (0, 2)


def test_what_does_not_fit_is_refused():
    fixed, moving, points_fixed, points_moving = random_sides(5, 6, 5)
    with pytest.raises(EstimationError, match="same model"):
        match(fixed, moving[:, :4], points_fixed, points_moving, NEAREST)
    with pytest.raises(EstimationError, match="fixed: descriptors"):
        match(fixed, moving, points_moving, points_moving, NEAREST)
