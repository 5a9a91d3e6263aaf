"""Figures -> confidence -> verdict, by one calibrated model in place of limits set by hand.

The model is a logistic regression on a few transformed numbers. No weight is negative, so better
figures never lower the confidence. Numbers outside of the fitted range are clipped to it, so
nothing is extrapolated. Weights, ranges and limits are in ``Resources/Models/trust.json``, which
the study ``trust_fit`` writes; docs/trust.md describes the fit.

The confidence is the probability that the transform is right, within `RIGHT_MM` on average over the
ultrasound, if right and wrong results were equally frequent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from scipy.special import expit

from ..config import Settings, from_mapping
from ..config.values import NotNegative, Share, converted
from ..errors import InputError
from ..runtime.resources import resource

ACCEPTED, DOUBTFUL, REFUSED = "accepted", "doubtful", "refused"
RIGHT_MM = 5.0
MOST_REASONS = 3
_TELLING = 0.15  # of all missing log-odds; a number that misses more is a reason
_LEAST_MISSING = 0.1  # log-odds, likewise
_SMALLEST, _LARGEST = 1e-2, 1e2  # of numbers whose logarithm counts
_WEIGHTS = "Models/trust.json"


def _log(value: float) -> float:
    """Kept finite."""
    return math.log(min(max(value, _SMALLEST), _LARGEST))


Numbers = Mapping[str, Any]  # float or None, by the names of `assess.Trust`


@dataclass(frozen=True)
class Feature:
    """How one number enters the model.

    Attributes:
        of: transforms it so that larger is better.
        missing: the transformed number where it could not be determined.
    """

    of: Callable[[float], float]
    missing: float


_RATIO = Feature(_log, _log(0.0))
_LENGTH = Feature(lambda mm: -_log(mm), -_log(math.inf))
_MARGIN = Feature(float, -1.0)
FEATURES: dict[str, Feature] = {
    "chance_ratio": _RATIO,
    # Keypoints have no descriptor score, which neither helps nor harms them.
    "score_ratio": Feature(_log, _log(math.inf)),
    "mind_margin": _MARGIN,
    "lc2_margin": _MARGIN,
    "agreement_mm": _LENGTH,
    "spread_mm": _RATIO,
    "raw_error_mm": _LENGTH,
}
_OVERLAP = "Too little of the ultrasound lies on the MRI to compare the two images."
_UNDETERMINED = {
    "mind_margin": _OVERLAP,
    "lc2_margin": _OVERLAP,
    "agreement_mm": "Two halves of the matches do not lead to the same position.",
}


@dataclass(frozen=True)
class Term(Settings):
    """How much one number counts in the model.

    Attributes:
        weight: log-odds per unit of the transformed number; not negative.
        low, high: range of the transformed number. Half of the right results reach ``high``. Larger
            values are clipped, so that one number cannot make up for the others.
    """

    weight: NotNegative
    low: float
    high: float

    def of(self, value: float) -> float:
        """The transformed number, clipped; the lowest for NaN."""
        return self.low if math.isnan(value) else min(max(value, self.low), self.high)


@dataclass(frozen=True)
class TrustModel:
    """The fitted model.

    Attributes:
        bias: log-odds where all terms are zero.
        terms: by the names of `FEATURES`.
        accepted_from, doubtful_from: confidences from which a result is accepted, or doubtful.
        hidden_mm: error that the matches do not show. Its sum with the raw estimate, in quadrature,
            is at least the true error in 90 % of right results.
        made_by: the command, the encoder's weights and the pairs that it was fitted on.
    """

    bias: float
    terms: Mapping[str, Term]
    accepted_from: Share
    doubtful_from: Share
    hidden_mm: NotNegative
    made_by: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> TrustModel:
        """The bundled model, or one from a file that the fit wrote.

        Raises:
            InputError: the file cannot be read or is no such model.
        """
        return _load(resource(_WEIGHTS) if path is None else Path(path))

    def confidence(self, numbers: Numbers) -> float:
        """0 to 1."""
        return float(expit(self.bias + sum(self.parts(numbers).values())))

    def parts(self, numbers: Numbers) -> dict[str, float]:
        """What each number adds to the log-odds."""
        return {k: t.weight * t.of(transformed(k, numbers)) for k, t in self.terms.items()}

    def predicted_mm(self, raw_error_mm: float | None) -> float | None:
        """Upper bound of the true error in 90 % of right results; None where it is unknown."""
        return None if raw_error_mm is None else math.hypot(raw_error_mm, self.hidden_mm)

    def verdict(self, confidence: float) -> str:
        """`ACCEPTED`, `DOUBTFUL` or `REFUSED`."""
        if confidence >= self.accepted_from:
            return ACCEPTED
        return DOUBTFUL if confidence >= self.doubtful_from else REFUSED

    def reasons(self, numbers: Numbers) -> list[str]:
        """Sentences that say why a result is not accepted: the numbers that are weaker than in half
        of the right results, weakest first. Empty when it is accepted."""
        confidence = self.confidence(numbers)
        if self.verdict(confidence) == ACCEPTED:
            return []
        parts = self.parts(numbers)
        missing = {k: t.weight * t.high - parts[k] for k, t in self.terms.items()}
        least = max(_TELLING * sum(missing.values()), _LEAST_MISSING)
        weak = sorted((k for k, gap in missing.items() if gap > least), key=lambda k: -missing[k])
        said = [_sentence(name, numbers) for name in weak[:MOST_REASONS]]
        return list(dict.fromkeys(said)) or [
            f"All checks together give a confidence of {confidence:.2f}; "
            f"{self.accepted_from:.2f} is needed."
        ]


_NUMBERS = {
    "bias": float,
    "accepted_from": Share,
    "doubtful_from": Share,
    "hidden_mm": NotNegative,
}


@lru_cache(maxsize=8)
def _load(path: Path) -> TrustModel:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in _NUMBERS.items():
            values[name] = converted(values[name], kind, f"{path}: {name}")
        values["terms"] = {
            name: from_mapping(Term, term, f"{path}: terms.{name}")
            for name, term in values["terms"].items()
        }
        model = TrustModel(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not a model of the trust; run the study trust_fit again"
        ) from error
    if not set(model.terms) <= set(FEATURES):
        raise InputError(f"{path}: expected terms of {sorted(FEATURES)}; fit it again")
    return model


def transformed(name: str, numbers: Numbers) -> float:
    """One of the numbers by its `Feature`."""
    value, feature = numbers[name], FEATURES[name]
    return feature.missing if value is None else feature.of(value)


def _sentence(name: str, numbers: Numbers) -> str:
    """The sentence about one weak number, for a surgeon."""
    value = numbers[name]
    if value is None:
        return _UNDETERMINED.get(name, "The matches that agree are too few to estimate the error.")
    if name == "chance_ratio":
        count = numbers["independent_inliers"] or 0.0
        chance = count / max(value, _SMALLEST)
        return f"Too few matches agree ({count:.0f}; chance alone gives {chance:.0f})."
    return {
        "score_ratio": f"Another position fits nearly as well or better (ratio {value:.2f}).",
        "mind_margin": "The anatomy fits no better here than a few millimetres away.",
        "lc2_margin": "The MRI explains the bright structures in the ultrasound hardly better here "
        "than a few millimetres away.",
        "agreement_mm": f"Two halves of the matches lead to positions {value:.1f} mm apart.",
        "spread_mm": f"The matches that agree lie too close together ({value:.1f} mm), "
        "so the rotation is uncertain.",
        "raw_error_mm": f"The matches scatter: the expected error is {value:.1f} mm.",
    }[name]
