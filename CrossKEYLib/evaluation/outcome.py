"""The values that a benchmark writes for each registration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from ..registration.result import Judged


class Trialled(TypedDict):
    """The values that the outcomes of all methods have.

    Attributes:
        kind, mri, ius, method, level, seed: of the trial.
        start_tre_mm: mean target registration error before; None without targets.
        tre_mm: after; None without targets or transform.
        floor_mm: of the best rigid fit to the targets.
        matrix_ras: ``T_fixed_moving``, RAS mm; None where none was found.
        seconds, processor_seconds: of the registration.
    """

    kind: str
    mri: str
    ius: str
    method: str
    level: str
    seed: int
    start_tre_mm: float | None
    tre_mm: float | None
    floor_mm: float | None
    matrix_ras: list[list[float]] | None
    seconds: float
    processor_seconds: float


class PeerOutcome(Trialled, total=False):
    """Of a peer; ``failure`` says why it gave up."""

    failure: str


class OwnOutcome(Trialled, Judged, total=False):
    """Of our own method: the values of its report and, where the truth is known, the precision of
    its matches."""

    precision: float
    matching_score: float


Outcome = PeerOutcome | OwnOutcome


class SavedOutcomes(TypedDict):
    """Content of ``outcomes.json``: the settings of each method, and all outcomes."""

    settings: dict[str, Any]
    outcomes: list[Outcome]


def own(outcomes: Iterable[Outcome]) -> list[OwnOutcome]:
    """Those of our own method; those of peers have no confidence."""
    return [outcome for outcome in outcomes if "confidence" in outcome]
