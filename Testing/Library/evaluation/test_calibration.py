"""Calibration against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from CrossKEYLib.config import TrustConfig
from CrossKEYLib.evaluation.calibration import (
    _evidence,
    calibrate,
    coverage,
    expected_calibration_error,
    fitted_steepness,
    judged_anew,
    rank_correlation,
    reliability,
    table,
    wilson,
)
from CrossKEYLib.trust.confidence import confidence_of


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
    assert math.isnan(coverage([], []))


def test_rank_correlation_sees_order_alone():
    assert rank_correlation([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1, 2], [1, 2]))
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_wilson_interval():
    """Textbook: 95 % of 0 of 10 is 0 to z^2 / (10 + z^2); it mirrors at one half."""
    assert wilson(0, 10) == (0, pytest.approx(1.96**2 / (10 + 1.96**2)))
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


def judged(margin: float, right: bool) -> dict:
    """An outcome all of whose evidence lies ``margin`` times beyond its limit, both images together
    as well: where the intensity passes, it does so by as much as they need together."""
    limits = TrustConfig()
    return ours("real" if right else "foreign", 1.0 if right else None, 0.5) | {
        "trust": {
            "independent_inliers": 50.0,
            "chance_ratio": margin * limits.min_chance_ratio,
            "score_ratio": margin * limits.min_score_ratio,
            "mind_margin": margin * limits.min_mind_margin,
            "lc2_margin": (margin if margin < 1 else limits.min_coincidence)
            * limits.min_lc2_margin,
            "agreement_mm": limits.max_agreement_mm / margin,
            "spread_mm": margin * limits.min_spread_mm,
            "predicted_tre_mm": limits.max_predicted_tre_mm / margin,
        }
    }


def test_outcomes_are_judged_anew_by_other_limits():
    narrow = judged(1.2, True) | {"n_matches": 500}
    strict, lenient = (
        judged_anew(narrow, replace(TrustConfig(), steepness=steep)) for steep in (2.0, 20.0)
    )
    assert (strict["accepted"], lenient["accepted"]) == (False, True)
    assert strict["confidence"] < 0.5 < lenient["confidence"]
    assert "passed only narrowly" in strict["reasons"][0]
    assert lenient["reasons"] == []
    lost = judged(0.5, False) | {"n_matches": 3}
    lost["trust"] |= {"agreement_mm": None, "predicted_tre_mm": None}
    found = judged_anew(lost, TrustConfig())
    assert (found["accepted"], found["tre_mm"]) == (False, None)
    assert found["confidence"] < 1e-6
    assert len(found["reasons"]) == 7


def test_steepness_is_what_makes_the_outcomes_likely():
    """Nine of ten right where all evidence is twice the limit: there the confidence is 0.9."""
    outcomes = [judged(2.0, n % 10 > 0) for n in range(1000)]
    found = fitted_steepness(outcomes, TrustConfig())
    assert confidence_of(outcomes[0]["trust"], TrustConfig(steepness=found)) == pytest.approx(
        0.9, abs=2e-3
    )


def test_what_is_told_apart_entirely_has_a_steepness_that_grows_with_its_number():
    few, many = (
        fitted_steepness([judged(1.5, True), judged(0.7, False)] * n, TrustConfig())
        for n in (3, 300)
    )
    assert 1 < few < many < 32


def test_evidence_that_was_not_finite_counts_against():
    missing = judged(2.0, False)
    missing["trust"] |= {"agreement_mm": None, "chance_ratio": None}
    assert confidence_of(_evidence(missing), TrustConfig()) < 1e-6
