"""From evidence to a verdict: monotone, clipped, and said in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.trust.confidence import FEATURES, Term, TrustModel

MODEL = TrustModel.load()
BETTER = {name: -1 if name.endswith("_mm") and name != "spread_mm" else 1 for name in FEATURES}


def numbers_at(model: TrustModel, place: str) -> dict[str, Any]:
    """Evidence that lies at "low" or "high" of every term."""
    found: dict[str, Any] = {"independent_inliers": 8.0}
    for name, term in model.terms.items():
        value = getattr(term, place)
        linear = name in ("mind_margin", "lc2_margin")
        found[name] = value if linear else math.exp(BETTER[name] * value)
    return found


def test_limits_are_in_order_and_evidence_decides():
    assert 0 < MODEL.doubtful_from <= MODEL.accepted_from < 1
    worst, best = (numbers_at(MODEL, place) for place in ("low", "high"))
    assert MODEL.verdict(MODEL.confidence(worst)) == "refused"
    assert MODEL.confidence(worst) < 0.05
    assert MODEL.verdict(MODEL.confidence(best)) == "accepted"


@pytest.mark.parametrize("name", FEATURES)
def test_more_evidence_never_lowers_the_confidence(name):
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, high = numbers_at(MODEL, "low"), numbers_at(MODEL, "high")
        numbers = {k: low[k] + rng.uniform(-0.2, 1.2) * (high[k] - low[k]) for k in FEATURES}
        step = BETTER[name] * rng.uniform(0, 1) * abs(high[name] - low[name])
        assert MODEL.confidence(numbers | {name: numbers[name] + step}) >= MODEL.confidence(numbers)


def test_nothing_is_extrapolated():
    """A single number, however strong or weak, adds no more than the most that was fitted on."""
    high, low = numbers_at(MODEL, "high"), numbers_at(MODEL, "low")
    absurd = high | {"chance_ratio": 1e9, "mind_margin": 5.0, "agreement_mm": 1e-9}
    assert MODEL.confidence(absurd) == pytest.approx(MODEL.confidence(high), abs=1e-4)
    lost = low | {"chance_ratio": 0.0, "agreement_mm": math.inf, "mind_margin": math.nan}
    assert MODEL.confidence(lost) == pytest.approx(MODEL.confidence(low), abs=1e-4)


@pytest.mark.parametrize("name", FEATURES)
def test_what_could_not_be_determined_counts_as_the_worst(name):
    """But keypoints have no descriptor score at all, and are not punished for it."""
    high, low = numbers_at(MODEL, "high"), numbers_at(MODEL, "low")
    same = high if name == "score_ratio" else high | {name: low[name]}
    assert MODEL.confidence(high | {name: None}) == pytest.approx(MODEL.confidence(same), abs=1e-9)


def test_the_confidence_is_the_logistic_function_of_the_sum():
    """Two terms by hand: -1 + 2 log(e) + 100 * 0.02 = 3; clipped at 0.01 it is 2."""
    terms = {"chance_ratio": Term(2, -1, 2), "mind_margin": Term(100, -0.1, 0.03)}
    model = TrustModel(-1, terms, 0.9, 0.5, 1, {})
    numbers = {"chance_ratio": math.e, "mind_margin": 0.02, "independent_inliers": 9.0}
    assert model.confidence(numbers) == pytest.approx(1 / (1 + math.exp(-3)))
    clipped = replace(model, terms=terms | {"mind_margin": Term(100, -0.1, 0.01)})
    assert clipped.confidence(numbers) == pytest.approx(1 / (1 + math.exp(-2)))
    assert [model.verdict(c) for c in (0.95, 0.9, 0.7, 0.5, 0.4)] == [
        "accepted",
        "accepted",
        "doubtful",
        "doubtful",
        "refused",
    ]


@pytest.mark.parametrize(
    ("weak", "said"),
    [
        ({"chance_ratio": 8 / 6}, "Too few matches agree (8; chance alone gives 6)."),
        ({"mind_margin": -0.01}, "fits no better here than a few millimetres away"),
        ({"mind_margin": None}, "Too little of the ultrasound lies on the MRI"),
        ({"agreement_mm": 7.3}, "lead to positions 7.3 mm apart"),
        ({"agreement_mm": None}, "do not lead to the same position"),
        ({"spread_mm": 3.2}, "too close together (3.2 mm)"),
        ({"raw_error_mm": None}, "too few to estimate the error"),
        ({"raw_error_mm": 9.0}, "expected error is 9.0 mm"),
        ({"score_ratio": 0.84}, "fits nearly as well or better (ratio 0.84)"),
    ],
)
def test_what_is_weakest_is_said_first(weak, said):
    """All weights count alike here, so the number that was weakened is the reason."""
    even = {name: replace(t, weight=4 / (t.high - t.low)) for name, t in MODEL.terms.items()}
    model = replace(MODEL, terms=even, accepted_from=1.0)
    reasons = model.reasons(numbers_at(model, "high") | weak)
    assert said in reasons[0]


def test_reasons_are_few_and_only_for_what_is_not_accepted():
    strict = replace(MODEL, accepted_from=1.0)
    assert MODEL.reasons(numbers_at(MODEL, "high")) == []
    assert 1 <= len(strict.reasons(numbers_at(MODEL, "low"))) <= 3
    assert "1.00 is needed" in strict.reasons(numbers_at(MODEL, "high"))[0]


@pytest.mark.parametrize("text", ["", "{}", '{"bias": 1}', '{"bias":0,"terms":{"luck":{}}}', "[]"])
def test_a_broken_file_is_refused(tmp_path, text):
    path = tmp_path / "trust.json"
    path.write_text(text)
    with pytest.raises(InputError, match="fit"):
        TrustModel.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": -1}, r"terms\.chance_ratio\.weight: expected at least 0, got -1"),
        ({"low": "much"}, r"terms\.chance_ratio\.low: expected a number, got 'much'"),
        ({"shoe": 1}, r"terms\.chance_ratio: unknown key 'shoe'"),
        ({"accepted_from": 7}, r"accepted_from: expected a number from 0 to 1, got 7"),
        ({"hidden_mm": None}, "hidden_mm: expected a number, got None"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, changed, message):
    path = tmp_path / "trust.json"
    values = {"bias": 0, "accepted_from": 0.9, "doubtful_from": 0.5, "hidden_mm": 1, "made_by": {}}
    term = {"weight": 1, "low": 0, "high": 1}
    of_model = {name: changed[name] for name in changed if name in values}
    of_term = {name: changed[name] for name in changed if name not in values}
    values |= {"terms": {"chance_ratio": term | of_term}, **of_model}
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        TrustModel.load(path)
