"""How far the trust holds: verdicts by kind of pair and by person, and the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CrossKEYLib.evaluation.calibration import expected_calibration_error, wilson

from .trust_rows import NEAR, Rows, pair_confidence, weights_of

VERDICTS = ("accepted", "doubtful", "refused")


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a model says of rows.

    Attributes:
        confidence: ``[N]``.
        accepted_from, doubtful_from: its limits.
        predicted_mm: ``[N]``, what the true error should stay below.
    """

    confidence: np.ndarray
    accepted_from: float
    doubtful_from: float
    predicted_mm: np.ndarray

    def counts(self, confidence: np.ndarray) -> list[int]:
        """How many of ``confidence [M]`` are accepted, doubtful, refused."""
        accepted = confidence >= self.accepted_from
        shown = confidence >= self.doubtful_from
        return [int(accepted.sum()), int((shown & ~accepted).sum()), int((~shown).sum())]


def table(rows: Rows, judged: Judgement) -> str:
    """Markdown."""
    parts = [_by_kind(rows, judged), _by_person(rows, judged), _figures(rows, judged)]
    return "\n\n".join(parts)


def _by_kind(rows: Rows, judged: Judgement) -> str:
    own, near = rows.kind == "own", rows.kind == NEAR
    groups = {
        "belongs together, found within 5 mm": judged.confidence[own & rows.right],
        "belongs together, found elsewhere": judged.confidence[own & ~rows.right],
        "near miss of 5 to 15 mm": judged.confidence[near & ~rows.right],
    }
    for kind in np.unique(rows.kind[rows.strangers]):
        part = rows.kind == kind
        groups[kind] = pair_confidence(rows.part(part), judged.confidence[part])
    lines = []
    for name, values in groups.items():
        if len(values):
            shown = [*judged.counts(values), f"{np.median(values):.2f}", f"{values.max():.2f}"]
            lines.append([name, len(values), *shown])
    return _markdown(["pairs", "judged", *VERDICTS, "confidence, median", "largest"], lines)


def _by_person(rows: Rows, judged: Judgement) -> str:
    own = rows.kind == "own"
    lines = []
    for person in np.unique(rows.person[own]):
        of = own & (rows.person == person)
        right = of & rows.right
        if not right.any():
            lines.append([person, f"0 of {of.sum()}", *[""] * 6])
            continue
        true, predicted = rows.tre_mm[right], judged.predicted_mm[right]
        middle = [f"{np.median(x):.1f} mm" for x in (true, predicted)]
        covered = f"{100 * np.mean(true <= predicted):.0f} %"
        counts = judged.counts(judged.confidence[right])
        lines.append([person, f"{right.sum()} of {of.sum()}", *counts, *middle, covered])
    heads = ["person", "found", *VERDICTS, "error, median", "predicted, median", "covered"]
    return _markdown(heads, lines)


def _figures(rows: Rows, judged: Judgement) -> str:
    own = rows.kind == "own"
    right, missed = own & rows.right, ~rows.right & ~rows.strangers
    strangers = pair_confidence(rows, judged.confidence)
    accepted = judged.confidence >= judged.accepted_from
    lines = [["accepted, of right results", _share(accepted[right])]]
    if len(strangers):
        lines += [
            ["accepted, of strangers", _share(strangers >= judged.accepted_from)],
            ["accepted or doubtful, of strangers", _share(strangers >= judged.doubtful_from)],
            ["area under the ROC curve", f"{area(judged.confidence[right], strangers):.3f}"],
        ]
    if missed.any():
        lines.append(["accepted, of what lies more than 5 mm off", _share(accepted[missed])])
    covered = (rows.tre_mm <= judged.predicted_mm)[right]
    lines += [
        ["expected calibration error", f"{_calibration_error(rows, judged):.3f}"],
        ["error not above the predicted, of right results", _share(covered)],
        ["accepted from", f"{judged.accepted_from:g}"],
        ["doubtful from", f"{judged.doubtful_from:g}"],
    ]
    return _markdown(["", ""], lines)


def area(right: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the ROC curve: how often a right result has more confidence than a wrong one."""
    return float((right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean())


def _calibration_error(rows: Rows, judged: Judgement) -> float:
    """With right and wrong results as frequent as in the fit."""
    pick = np.random.default_rng(0).choice(len(rows.right), 20_000, p=weights_of(rows))
    return expected_calibration_error(judged.confidence[pick], rows.right[pick])


def _share(hits: np.ndarray) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    share = f"{hits.sum()} of {len(hits)} ({100 * hits.mean():.1f} %; "
    return share + f"95 %: {100 * low:.1f} to {100 * high:.1f})"


def _markdown(heads: list[str], lines: list[list]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
