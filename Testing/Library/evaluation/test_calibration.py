"""Calibration against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from CrossKEYLib.evaluation.calibration import (
    calibrate,
    coverage,
    expected_calibration_error,
    judged_anew,
    rank_correlation,
    reliability,
    table,
    wilson,
)
from CrossKEYLib.trust.confidence import TrustModel


def test_a_calibrated_confidence_has_no_error():
    """In each bin as many are right as the confidence says."""
    confidence = np.repeat([0.1, 0.5, 0.9], 10)
    right = np.concatenate([np.arange(10) < hits for hits in (1, 5, 9)])
    assert expected_calibration_error(confidence, right) == pytest.approx(0)
    bins = reliability(confidence, right)
    assert [(b.count, b.confidence, b.right) for b in bins] == [
        (10, pytest.approx(0.1), 0.1),
        (10, pytest.approx(0.5), 0.5),
        (10, pytest.approx(0.9), 0.9),
    ]
    assert [(b.low, b.high) for b in bins] == [(0, 0.2), (0.4, 0.6), (0.8, 1)]


def test_the_error_is_weighted_by_the_counts():
    """Three sure and wrong, one doubtful and right: (3 * 1 + 1 * 0.7) / 4."""
    assert expected_calibration_error([1, 1, 1, 0.3], [0, 0, 0, 1]) == pytest.approx(3.7 / 4)
    assert expected_calibration_error([], []) == 0


def test_coverage_counts_errors_within_the_prediction():
    predicted, true = [1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 3.5, 9.0]
    assert coverage(predicted, true) == 0.5
    assert coverage(predicted, true, 2.0) == 0.75
    assert coverage([], []) is None


def test_rank_correlation_sees_order_alone():
    assert rank_correlation([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_wilson_interval():
    """Textbook: 95 % of 0 of 10 is 0 to z^2 / (10 + z^2); it mirrors at one half."""
    assert wilson(0, 10) == (0, pytest.approx(1.96**2 / (10 + 1.96**2), rel=1e-4))
    low, high = wilson(7, 10)
    assert wilson(3, 10) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert wilson(0, 0) == (0, 1)


def ours(kind: str, tre: float | None, confidence: float, predicted: float | None = 1.0) -> dict:
    return {
        "kind": kind,
        "tre_mm": tre,
        "confidence": confidence,
        "predicted_tre_mm": predicted,
        "accepted": confidence >= 0.5,
    }


def test_outcomes_are_counted():
    outcomes = [
        ours("real", 0.9, 0.9, 1.0),
        ours("real", 2.0, 0.3, 1.5),
        ours("simulated", 8.0, 0.6, 2.0),
        ours("real", None, 0.0, None),
        ours("foreign", None, 0.7),
        ours("foreign", None, 0.1),
        {"kind": "real", "tre_mm": 1.0},  # a peer
    ]
    found = calibrate(outcomes)
    assert found is not None
    assert (found.n, found.n_right, found.right_refused, found.wrong_accepted) == (4, 2, 1, 1)
    assert (found.n_foreign, found.foreign_accepted) == (2, 1)
    assert found.correlation == pytest.approx(1)
    assert found.covered == pytest.approx(1 / 3)
    assert found.covered_twice == pytest.approx(2 / 3)
    assert sum(b.count for b in found.bins) == 6
    text = table(found)
    assert "| foreign pairs accepted | 1 of 2 (95 %: at most 91 %) |" in text
    assert "| true TRE not above the predicted | 33 % |" in text


def test_without_our_own_outcomes_there_is_nothing_to_calibrate():
    assert calibrate([{"kind": "real", "tre_mm": 1.0}]) is None


EVIDENCE = {
    "independent_inliers": 20.0,
    "chance_ratio": 5.0,
    "score_ratio": 2.0,
    "mind_margin": 0.03,
    "lc2_margin": 0.4,
    "agreement_mm": 0.5,
    "spread_mm": 14.0,
    "raw_error_mm": 1.0,
}


def test_outcomes_are_judged_anew_by_another_model():
    clear = ours("real", 1.0, 0.2) | {"trust": EVIDENCE}
    model = TrustModel.load()
    strict = judged_anew(clear, replace(model, accepted_from=1.0, doubtful_from=0.5))
    lenient = judged_anew(clear, replace(model, accepted_from=0.5))
    assert (strict["verdict"], strict["accepted"]) == ("doubtful", False)
    assert (lenient["verdict"], lenient["accepted"]) == ("accepted", True)
    assert strict["confidence"] == lenient["confidence"] > 0.8
    assert strict["reasons"]
    assert not lenient["reasons"]
    assert strict["tre_mm"] == 1.0
    assert strict["predicted_tre_mm"] == pytest.approx(math.hypot(1.0, model.hidden_mm))


def test_an_outcome_whose_error_is_unknown_has_no_predicted_error():
    lost = ours("real", 1.0, 0.2) | {"trust": EVIDENCE | {"raw_error_mm": None}}
    assert judged_anew(lost, TrustModel.load())["predicted_tre_mm"] is None
