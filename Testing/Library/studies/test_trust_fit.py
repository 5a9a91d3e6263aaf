"""The fit of the trust: calibrated, monotone, blind to who is left out, and its limits kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from CrossKEYLib.errors import InputError
from CrossKEYLib.trust.confidence import FEATURES, TrustModel, transformed
from Testing.Studies import trust_fit
from Testing.Studies.trust_rows import Rows, pair_confidence, read_rows, weights_of
from Testing.Studies.trust_table import area


def rows_of(count: int = 600, people: int = 12, seed: int = 0) -> Rows:
    """Right and wrong results that the lead of structure tells apart; the other numbers are alike
    for both. A true error is the raw one times a log-normal factor."""
    rng = np.random.default_rng(seed)
    right = np.arange(count) % 2 == 0
    person = np.array([f"head {n % people}" for n in range(count)])
    numbers = []
    for is_right in right:
        one = {name: float(np.exp(rng.normal(0, 0.3))) for name in FEATURES}
        one["lc2_margin"] = float(rng.normal(0.2, 0.1))
        one["mind_margin"] = float(rng.normal(0.02 if is_right else 0.0, 0.01))
        numbers.append(one | {"independent_inliers": 20.0})
    features = np.array([[transformed(name, n) for name in FEATURES] for n in numbers])
    raw = np.array([n["raw_error_mm"] for n in numbers])
    tre = np.where(right, raw * np.exp(rng.normal(0, 0.4, count)), np.nan)
    kind = np.where(right, "own", "real foreign")
    pair = np.array([f"pair {n}" for n in range(count)])
    other = np.full(count, "None")
    return Rows(np.array(numbers, object), features, right, tre, person, kind, pair, other)


def test_what_tells_apart_gets_the_weight_and_the_confidence_is_calibrated():
    rows, names = rows_of(), list(FEATURES)
    model = trust_fit.fit(rows, names, l2=1e-4)
    assert all(term.weight >= 0 for term in model.terms.values())
    spread = rows.features.std(0)
    share = {n: model.terms[n].weight * s for n, s in zip(names, spread, strict=True)}
    assert share["mind_margin"] > 3 * max(v for n, v in share.items() if n != "mind_margin")
    confidence = trust_fit.left_out(rows, names, l2=1e-4)
    middle = (confidence > 0.3) & (confidence < 0.7)
    assert rows.right[middle].mean() == pytest.approx(confidence[middle].mean(), abs=0.12)
    assert area(confidence[rows.right], confidence[~rows.right]) > 0.85


def test_evidence_that_speaks_against_itself_gets_no_weight():
    """Were more inlier spread seen in wrong results, the confidence still must not fall with it."""
    rows, names = rows_of(), list(FEATURES)
    place = names.index("spread_mm")
    rows.features[:, place] = np.where(rows.right, -1.0, 1.0) + rows.features[:, place]
    assert trust_fit.fit(rows, names).terms["spread_mm"].weight == 0


def test_who_is_left_out_has_no_part():
    """One person's labels turned round change that person's own confidences not at all."""
    rows, names = rows_of(count=240), list(FEATURES)
    before = trust_fit.left_out(rows, names)
    own = rows.person == "head 3"
    turned = np.where(own, ~rows.right, rows.right)
    after = trust_fit.left_out(Rows(**{**vars(rows), "right": turned}), names)
    assert np.array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


def test_limits_leave_the_wanted_share_of_strangers():
    rows = rows_of(count=2000)
    confidence = np.linspace(0, 0.999, 2000)
    accepted, doubtful = trust_fit.limits(rows, confidence)
    strangers = confidence[~rows.right]
    assert (strangers >= accepted).mean() <= trust_fit.WRONG_ACCEPTED
    assert (strangers >= doubtful).mean() <= trust_fit.WRONG_SHOWN
    assert expit(logit(doubtful) - trust_fit.AHEAD) == pytest.approx(0.96, abs=3e-3)
    assert doubtful < accepted < 1


def test_a_pair_counts_by_its_most_trusted_transform():
    rows = rows_of(count=8)
    rows.pair[:] = ["a", "x", "a", "x", "a", "x", "a", "y"]
    assert pair_confidence(rows, np.arange(8) / 10).tolist() == [0.5, 0.7]


def hiding(people: int, seed: int) -> Rows:
    """Right results whose true error is the raw one and a hidden part of up to 2 mm, evenly."""
    rows = rows_of(count=40 * people, people=people, seed=seed)
    hidden = 2 * np.random.default_rng(seed + 100).uniform(size=len(rows.right))
    tre = np.where(rows.right, np.hypot(rows.raw_error_mm, hidden), np.nan)
    return Rows(**{**vars(rows), "tre_mm": tre})


def test_the_predicted_error_covers_nine_of_ten_of_new_people():
    """90 % of the hidden parts are below 1.8 mm."""
    part = trust_fit.hidden_mm(hiding(100, seed=0))
    assert part == pytest.approx(1.8, abs=0.06)
    new = hiding(100, seed=1)
    covered = new.tre_mm[new.right] <= np.hypot(new.raw_error_mm[new.right], part)
    assert covered.mean() == pytest.approx(0.9, abs=0.03)


def test_few_strangers_have_the_limit_of_a_normal_distribution():
    """101 evenly spread quantiles of it: 0.5 % lie above 2.576 standard deviations."""
    odds = 2 * norm.ppf(np.linspace(0.005, 0.995, 101)) - 3
    rows = rows_of(count=202)
    confidence = np.zeros(202)
    confidence[~rows.right] = expit(odds)
    accepted, _ = trust_fit.limits(rows, confidence)
    assert logit(accepted) == pytest.approx(2 * 2.576 - 3 + trust_fit.AHEAD, abs=0.2)


def test_right_and_wrong_weigh_alike_and_people_too():
    rows = rows_of(count=100, people=4)
    rows.person[:60] = "Case24"  # what is left are heads 0 to 3
    weight = weights_of(rows)
    assert weight[rows.right].sum() == pytest.approx(0.5)
    real, other = (weight[rows.right & (rows.person == p)].sum() for p in ("Case24", "head 0"))
    assert real == pytest.approx(4 * other)


def line(kind: str, tre: float | None, n: int, found: bool = True) -> str:
    trust = dict.fromkeys(FEATURES, 1.0 + 0.1 * n) | {"agreement_mm": None}
    row = {"pair": f"p{n}", "head": f"h{n % 3}", "kind": kind, "other": None, "tre_mm": tre}
    return json.dumps(row | {"trust": trust if found else None, "weights": "abc"})


def test_from_file_to_model_and_table(tmp_path: Path):
    pairs, model = tmp_path / "pairs.jsonl", tmp_path / "trust.json"
    lines = [line("own", 1.0, n) for n in range(6)]
    lines += [line("own", 40.0, 7), line("own", None, 8, found=False)]
    lines += [line("near miss", 4.0, 9), line("near miss", 9.0, 10)]
    lines += [line("real foreign", None, n) for n in range(11, 17)]
    pairs.write_text("\n".join(lines) + "\n")
    rows, lost = read_rows([pairs], list(FEATURES))
    assert (len(rows.right), rows.right.sum(), lost) == (14, 6, 1)
    made, text = trust_fit.fitted([pairs])
    assert "| real foreign | 6 |" in text
    assert "led to no transform: 1" in text
    model.write_text(
        json.dumps({**vars(made), "terms": {k: vars(t) for k, t in made.terms.items()}})
    )
    assert TrustModel.load(model) == made
    assert "| accepted from |" in trust_fit.judged([pairs], TrustModel.load(model))


def test_evidence_of_two_encoders_is_not_mixed(tmp_path: Path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(line("own", 1.0, 0) + "\n")
    second.write_text(line("own", 1.0, 0).replace('"abc"', '"xyz"') + "\n")
    with pytest.raises(InputError, match=r"one encoder expected, got \['abc', 'xyz'\]"):
        read_rows([first, second], list(FEATURES))
    once, _ = read_rows([first], list(FEATURES))
    assert once.pair.tolist() == ["first|p0"]
