"""Figures -> confidence: numbers against limits, and in words which of them fail.

The confidence is the product of one logistic curve per question in the logarithm of number over
limit. Each curve passes one half at its limit, so strong evidence on one question never outweighs
missing evidence on another. The two questions to the images are asked together as well: what lies
on its likeness in another brain passes both narrowly, what lies in its own place passes at least
one of them clearly. The limits were set on ultrasound against another patient's MRI and on
simulated pairs; how steep the curves are follows from what results turned out to be
(`evaluation.calibration`, docs/trust.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from scipy.special import expit

from ..config import TrustConfig

_UNSEEN = "Too little of the ultrasound lies on the MRI to compare the two images."


def margins_of(numbers: Mapping[str, float], trust: TrustConfig) -> dict[str, float]:
    """Each number over its limit, or the limit over it where it must be small; passed from 1 on.

    Args:
        numbers: `trust.Trust` by the names of its fields.
        trust: the limits.
    """
    return {
        "chance_ratio": numbers["chance_ratio"] / trust.min_chance_ratio,
        "score_ratio": numbers["score_ratio"] / trust.min_score_ratio,
        "mind_margin": numbers["mind_margin"] / trust.min_mind_margin,
        "lc2_margin": numbers["lc2_margin"] / trust.min_lc2_margin,
        "coincidence": coincidence(numbers, trust) / trust.min_coincidence,
        "agreement_mm": trust.max_agreement_mm / max(numbers["agreement_mm"], 1e-6),
        "spread_mm": numbers["spread_mm"] / trust.min_spread_mm,
        "predicted_tre_mm": trust.max_predicted_tre_mm / max(numbers["predicted_tre_mm"], 1e-6),
    }


def coincidence(numbers: Mapping[str, float], trust: TrustConfig) -> float:
    """Both leads of the images, each over its own limit, multiplied; infinite if not asked.
    Arguments as in `margins_of`."""
    mind = max(numbers["mind_margin"] / trust.min_mind_margin, 1e-6)
    return mind * max(numbers["lc2_margin"] / trust.min_lc2_margin, 1e-6)


def confidence_of(numbers: Mapping[str, float], trust: TrustConfig) -> float:
    """0 to 1; arguments as in `margins_of`."""
    margins = margins_of(numbers, trust).values()
    return math.prod(float(expit(trust.steepness * math.log2(max(m, 1e-6)))) for m in margins)


def reasons_against(
    numbers: Mapping[str, float], confidence: float, n_matches: int, trust: TrustConfig
) -> list[str]:
    """A sentence for each limit that is not kept, in the order of `margins_of`."""
    margins = margins_of(numbers, trust)
    worth = numbers["independent_inliers"]
    sentences = {
        "chance_ratio": (
            f"Counting close neighbours once, only {worth:.0f} of {n_matches} matches agree on one "
            f"position; chance alone can reach {worth / max(numbers['chance_ratio'], 1e-6):.0f}."
        ),
        "score_ratio": (
            f"Laid so, the images agree only {numbers['score_ratio']:.2f} times as well as in the "
            f"best other place; at least {trust.min_score_ratio:.2f} times is needed."
        ),
        "mind_margin": _unless_unseen(
            numbers["mind_margin"],
            "A few mm beside, the tissue of both images fits as well as here or nearly so: the "
            f"lead is {numbers['mind_margin']:.4f}, at least {trust.min_mind_margin:.4f} is "
            "needed.",
        ),
        "lc2_margin": _unless_unseen(
            numbers["lc2_margin"],
            "The MRI explains what is bright in the ultrasound hardly better here than a few mm "
            f"beside: by {100 * numbers['lc2_margin']:.0f} %, at least "
            f"{100 * trust.min_lc2_margin:.0f} % is needed.",
        ),
        "coincidence": (
            "Both images fit better here than a few mm beside, but no better than on a like place "
            f"of another brain: {coincidence(numbers, trust):.1f} times what each lead needs "
            f"alone, at least {trust.min_coincidence:.1f} times is needed."
        ),
        "agreement_mm": (
            f"Two halves of the matches put the ultrasound {numbers['agreement_mm']:.1f} mm apart; "
            f"at most {trust.max_agreement_mm:.1f} mm is acceptable."
        ),
        "spread_mm": (
            f"The matches that agree lie too close together ({numbers['spread_mm']:.1f} mm, at "
            f"least {trust.min_spread_mm:.1f} mm is needed), so the rotation is uncertain."
        ),
        "predicted_tre_mm": (
            f"The expected error over the ultrasound is {numbers['predicted_tre_mm']:.1f} mm; "
            f"at most {trust.max_predicted_tre_mm:.1f} mm is acceptable."
        ),
    }
    failed = [name for name, margin in margins.items() if not margin >= 1]
    if "mind_margin" in failed or "lc2_margin" in failed:  # these say what is amiss with the images
        failed = [name for name in failed if name != "coincidence"]
    reasons = list(dict.fromkeys(sentences[name] for name in failed))  # unseen: said once
    if not reasons and confidence < trust.min_confidence:
        reasons.append(
            f"Every single check is passed only narrowly: confidence {confidence:.2f}, "
            f"at least {trust.min_confidence:.2f} is needed."
        )
    return reasons


def _unless_unseen(lead: float, reason: str) -> str:
    """The reason why a lead of the images is too small, or that it could not be told."""
    return _UNSEEN if lead <= -1 else reason
