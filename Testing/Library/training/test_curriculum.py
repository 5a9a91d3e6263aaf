"""The curriculum reaches the published values at the published epochs, and scales."""

from __future__ import annotations

import math

import pytest

from CrossKEYLib.training.curriculum import hardness, learning_rate, rotation_deg


@pytest.mark.parametrize(
    ("epoch", "negatives", "degrees"),
    [(0, 0, 0), (100, 0.5, 3), (200, 1, 6), (500, 1, 15), (1000, 1, 30), (1999, 1, 30)],
)
def test_published_run(epoch: int, negatives: float, degrees: float) -> None:
    assert hardness(epoch) == pytest.approx(negatives)
    assert rotation_deg(epoch) == pytest.approx(degrees)


def test_learning_rate_is_half_a_cosine() -> None:
    assert learning_rate(0) == pytest.approx(1e-3)
    assert learning_rate(1000) == pytest.approx((1e-3 + 1e-6) / 2)
    assert learning_rate(500) == pytest.approx(1e-6 + 0.999e-3 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(2000) == pytest.approx(1e-6)
    assert learning_rate(5000) == pytest.approx(1e-6)


def test_short_runs_climb_in_the_same_share_of_their_length() -> None:
    for share in (0.0, 0.03, 0.1, 0.37, 0.5, 1.0):
        assert hardness(40 * share, 40) == pytest.approx(hardness(2000 * share))
        assert rotation_deg(40 * share, 40) == pytest.approx(rotation_deg(2000 * share))
        assert learning_rate(40 * share, 40) == pytest.approx(learning_rate(2000 * share))


def test_long_runs_keep_the_published_ramps() -> None:
    assert hardness(100, 8000) == pytest.approx(0.5)
    assert rotation_deg(500, 8000) == pytest.approx(15)
    assert learning_rate(4000, 8000) == pytest.approx((1e-3 + 1e-6) / 2)


def test_limits_hold_before_after_and_without_any_epoch() -> None:
    assert (hardness(-1), rotation_deg(-1)) == (0, 0)
    assert learning_rate(-1) == pytest.approx(1e-3)
    assert hardness(1, 0) == 1
    assert learning_rate(1, 0) == pytest.approx(1e-6)
