"""Calibration of the confidence and of the predicted error.

Pure functions of the outcomes of a benchmark. A result is right if its mean target registration
error (TRE) is within `RIGHT_MM`; on a foreign pair none is. A registration has succeeded within
`SUCCESS_MM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, spearmanr

from ..trust.confidence import ACCEPTED, RIGHT_MM, TrustModel
from .outcome import Outcome, OwnOutcome, own

SUCCESS_MM = 3.0
BINS = 5  # of equal width; more bins would be almost empty


@dataclass(frozen=True)
class Bin:
    """Results of similar confidence.

    Attributes:
        low, high: of the bin.
        count: results in it.
        confidence: their mean.
        right: share of them that is right.
        interval: 95 % interval of that share (Wilson).
    """

    low: float
    high: float
    count: int
    confidence: float
    right: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Confidence and predicted error against the truth.

    Attributes:
        bins: the reliability curve, bins without results left out.
        error: expected calibration error, 0 to 1.
        n, n_right: results, and how many are right.
        right_refused, wrong_accepted: the two kinds of error, on pairs that belong together.
        n_foreign, foreign_accepted: the same for pairs that do not.
        correlation: Spearman's, of predicted with true TRE; None where it is undefined.
        covered: share of true TRE not above the predicted; None without any.
        covered_twice: the same for twice the predicted.
    """

    bins: list[Bin]
    error: float
    n: int
    n_right: int
    right_refused: int
    wrong_accepted: int
    n_foreign: int
    foreign_accepted: int
    correlation: float | None
    covered: float | None
    covered_twice: float | None


def calibrate(outcomes: Sequence[Outcome]) -> Calibration | None:
    """From our own outcomes of a benchmark; other methods have no confidence and are left out.

    None where there are none.
    """
    ours = own(outcomes)
    if not ours:
        return None
    belonging = [o for o in ours if o["kind"] != "foreign"]
    foreign = [o for o in ours if o["kind"] == "foreign"]
    right = [is_right(o) for o in ours]
    known = [(o["predicted_tre_mm"], o["tre_mm"]) for o in belonging]
    both = [(p, t) for p, t in known if p is not None and t is not None]
    predicted, true = [p for p, _ in both], [t for _, t in both]
    confidence = [o["confidence"] for o in ours]
    return Calibration(
        bins=reliability(confidence, right),
        error=expected_calibration_error(confidence, right),
        n=len(belonging),
        n_right=sum(is_right(o) for o in belonging),
        right_refused=sum(is_right(o) and not o["accepted"] for o in belonging),
        wrong_accepted=sum(o["accepted"] and not is_right(o) for o in belonging),
        n_foreign=len(foreign),
        foreign_accepted=sum(o["accepted"] for o in foreign),
        correlation=rank_correlation(predicted, true),
        covered=coverage(predicted, true),
        covered_twice=coverage(predicted, true, 2.0),
    )


def is_right(outcome: Outcome) -> bool:
    """Whether the transform is right."""
    return outcome["tre_mm"] is not None and outcome["tre_mm"] <= RIGHT_MM


def succeeded(outcome: Outcome) -> bool:
    """Whether the transform is within the limit of the tables of success."""
    return outcome["tre_mm"] is not None and outcome["tre_mm"] <= SUCCESS_MM


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Share of right results per confidence ``[N]``, ``right [N]`` being 0 or 1; empty bins are
    left out. A calibrated confidence has ``right`` near ``confidence`` everywhere."""
    values, hits = np.asarray(confidence, float), np.asarray(right, bool)
    place = np.clip((values * bins).astype(int), 0, bins - 1)  # confidence 1 is in the last
    found = []
    for n in range(bins):
        inside = place == n
        if inside.any():
            count, hit = int(inside.sum()), int(hits[inside].sum())
            mean = float(values[inside].mean())
            share = (n / bins, (n + 1) / bins, count, mean, hit / count)
            found.append(Bin(*share, interval=wilson(hit, count)))
    return found


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Mean distance of confidence from the share of right results, over bins weighted by their
    count (Naeini et al., AAAI 2015); 0 is calibrated."""
    found = reliability(confidence, right, bins)
    total = sum(b.count for b in found)
    return sum(b.count * abs(b.confidence - b.right) for b in found) / max(total, 1)


def judged_anew(outcome: OwnOutcome, model: TrustModel) -> OwnOutcome:
    """An outcome of our own method, with confidence and verdict by another model of the trust. The
    transform stays."""
    numbers = outcome["trust"]
    confidence = model.confidence(numbers)
    verdict = model.verdict(confidence)
    anew = outcome.copy()
    anew["confidence"], anew["verdict"] = confidence, verdict
    anew["accepted"] = verdict == ACCEPTED
    anew["reasons"] = model.reasons(numbers)
    anew["predicted_tre_mm"] = model.predicted_mm(numbers["raw_error_mm"])
    return anew


def coverage(predicted_mm: ArrayLike, true_mm: ArrayLike, factor: float = 1.0) -> float | None:
    """Share of true errors not above ``factor`` times the predicted; None without any."""
    predicted, true = np.asarray(predicted_mm, float), np.asarray(true_mm, float)
    return float(np.mean(true <= factor * predicted)) if len(true) else None


def rank_correlation(predicted_mm: ArrayLike, true_mm: ArrayLike) -> float | None:
    """Spearman's correlation; None for fewer than three values or a constant side."""
    predicted, true = np.asarray(predicted_mm, float), np.asarray(true_mm, float)
    if len(true) < 3 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return None
    ranks: NDArray[np.float64] = np.asarray(spearmanr(predicted, true))
    return float(ranks[0])


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share seen ``hits`` times in ``count`` (Wilson 1927), near 0 and 1 too."""
    if count == 0:
        return 0.0, 1.0
    interval = binomtest(hits, count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def table(calibration: Calibration) -> str:
    """Markdown: the figures, then the reliability curve."""
    c = calibration
    high = wilson(c.foreign_accepted, c.n_foreign)[1]
    rows = [
        ("expected calibration error", f"{c.error:.2f}"),
        ("right results refused", f"{c.right_refused} of {c.n_right}"),
        ("wrong results accepted", f"{c.wrong_accepted} of {c.n - c.n_right}"),
    ]
    if c.n_foreign:
        share = f"{c.foreign_accepted} of {c.n_foreign} (95 %: at most {100 * high:.0f} %)"
        rows.append(("foreign pairs accepted", share))
    if c.n:
        rows += [
            ("predicted and true TRE, rank correlation", _number(c.correlation)),
            ("true TRE not above the predicted", _percent(c.covered)),
            ("true TRE not above twice the predicted", _percent(c.covered_twice)),
        ]
    lines = ["| trust | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["| confidence | results | mean confidence | right (95 % interval) |"]
    lines.append("|---|---|---|---|")
    for b in c.bins:
        low, high = (100 * x for x in b.interval)
        lines.append(
            f"| {b.low:.1f} to {b.high:.1f} | {b.count} | {b.confidence:.2f} | "
            f"{100 * b.right:.0f} % ({low:.0f} to {high:.0f}) |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "undefined" if share is None else f"{100 * share:.0f} %"
