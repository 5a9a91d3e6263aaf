"""Figures of the evaluation against values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.estimation.matching import Matches
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.evaluation.metrics import matching_precision, matching_score
from CrossKEYLib.evaluation.misplacements import LEVELS, start_of
from CrossKEYLib.geometry import transform
from CrossKEYLib.models.described import Described
from CrossKEYLib.registration.result import Registration
from CrossKEYLib.trust.assess import Trust

CENTRE = np.array([20.0, -35.0, 60.0])
LANDMARKS = torch.tensor(
    [[0.0, 0, 0], [30, 0, 0], [0, 40, 0], [0, 0, 50], [10, 20, 30]], dtype=torch.float64
)


def test_target_errors_are_distances_in_mm():
    matrix = np.eye(4)
    matrix[:3, 3] = [3, 0, 4]
    moving = LANDMARKS.clone()
    moving[1, 2] -= 4  # brings this one nearer: (3, 0, 0) is left
    expected = [5.0, 3.0, 5.0, 5.0, 5.0]
    assert target_errors(matrix, LANDMARKS, moving).tolist() == pytest.approx(expected)


def test_landmark_fit_finds_the_rigid_transform():
    truth = transform.random_rigid(np.random.default_rng(0), 20, 35, CENTRE)
    moving = transform.apply(transform.invert(truth), LANDMARKS)
    assert np.allclose(landmark_fit(LANDMARKS, moving), truth, atol=1e-9)


def result_with(fixed: torch.Tensor, moving: torch.Tensor, rows: list[list[int]]) -> Registration:
    none = torch.zeros(0, 2)
    trust = Trust(0, *[0.0] * 14, verdict="refused", reasons=[])
    indices = torch.tensor(rows, dtype=torch.long).reshape(-1, 2)
    return Registration(
        None,
        trust,
        Described(fixed, none),
        Described(moving, none),
        Matches(indices, torch.ones(len(rows))),
        torch.zeros(len(rows), dtype=torch.bool),
        Matches(indices[:0], torch.ones(0)),
        len(rows),
        {},
        "cpu",
        "none",
    )


def test_precision_counts_matches_within_5_mm_of_the_truth():
    truth = transform.random_rigid(np.random.default_rng(1), 10, 20, CENTRE)
    fixed = torch.tensor([[0.0, 0, 0], [4.9, 0, 0], [0, 5.1, 0], [80, 0, 0]])
    moving = transform.apply(transform.invert(truth), torch.zeros(1, 3))
    found = result_with(fixed, moving, [[0, 0], [1, 0], [2, 0], [3, 0]])
    assert matching_precision(found, truth) == 0.5
    assert matching_precision(result_with(fixed, moving, []), truth) == 0.0


def test_precision_is_of_the_reported_matches_and_the_score_of_all():
    fixed = torch.tensor([[0.0, 0, 0], [80, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = result_with(fixed, torch.zeros(4, 3), [[0, 0], [1, 1], [2, 2]])
    best = replace(found, n_reported=2)
    assert matching_precision(best, np.eye(4)) == 0.5  # the third, a right one, is not reported
    assert matching_score(best, np.eye(4)) == 2 / 4  # two right matches, four described points


def test_drawn_matches_spread_over_the_ultrasound():
    """The matches that were used lie in one corner, those that agree everywhere: what is drawn
    reaches everywhere, in the proportion of inliers to others, and so does the first half of it."""
    g = torch.Generator().manual_seed(0)
    clustered = 8 * torch.rand(600, 3, generator=g)
    everywhere = 60 * torch.rand(600, 3, generator=g)
    moving = torch.cat([clustered, everywhere])
    found = result_with(moving, moving, [[n, n] for n in range(600)])
    inliers = torch.arange(600) % 4 != 0
    agreeing = torch.cat([inliers.nonzero()[:, 0], torch.arange(600, 1200)])
    kinds = Matches(agreeing[:, None].expand(-1, 2), agreeing.float())
    found = replace(found, n_reported=200, inliers=inliers, agreeing=kinds)
    fixed, drawn, agree = found.drawn_points()
    assert torch.equal(fixed, drawn)
    assert len(drawn) == len(drawn.unique(dim=0)) == 200
    assert cubes(found.reported_points()[1]) == 1
    for some in (slice(200), slice(100)):
        assert cubes(drawn[some][agree[some]]) == 27
        assert float(agree[some].float().mean()) == pytest.approx(0.75, abs=0.02)
    matches, _ = found.drawn()
    assert torch.equal(matches.scores[agree], matches.indices[agree, 0].float())  # each its own


def cubes(points: torch.Tensor) -> int:
    """How many of the 27 cubes of 20 mm hold one of the points."""
    return len(set(map(tuple, (points // 20).long().tolist())))


def test_all_matches_are_drawn_where_they_are_few():
    few = torch.zeros(3, 3)  # in one place
    found = result_with(few, few, [[0, 0], [1, 1], [2, 2]])
    drawn = replace(found, n_reported=500).drawn()[0]
    assert sorted(drawn.indices[:, 0].tolist()) == [0, 1, 2]
    assert len(result_with(few, few, []).drawn()[0]) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_starts_have_the_size_of_their_level(level):
    shift_mm, turn_deg = LEVELS[level]
    for seed in range(3):
        start = start_of(level, seed, CENTRE)
        assert np.array_equal(start, start_of(level, seed, CENTRE))
        assert np.linalg.norm(start[:3, :3] @ CENTRE + start[:3, 3] - CENTRE) == pytest.approx(
            shift_mm, abs=1e-6
        )
        angle = math.degrees(Rotation.from_matrix(start[:3, :3]).magnitude())
        assert angle == pytest.approx(turn_deg, abs=1e-6)


def test_arbitrary_starts_turn_to_any_side():
    turns = Rotation.from_matrix([start_of("arbitrary", s, CENTRE)[:3, :3] for s in range(50)])
    assert np.degrees(turns.magnitude()).max() > 150
    assert np.abs(turns.mean().as_matrix() - np.eye(3)).max() > 0.2  # no preferred direction
