"""The evidence that `trust_pairs` wrote, as arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CrossKEYLib.errors import InputError
from CrossKEYLib.trust.confidence import RIGHT_MM, transformed

from .trust_evidence import NEAR, OWN

REAL_WORTH = 4.0  # of a person with real ultrasound, in persons with simulated
NEAR_SHARE = 0.2  # of the weight of all that is wrong


@dataclass(frozen=True, eq=False)
class Rows:
    """Judged transforms.

    Attributes:
        numbers: evidence of each, by the names of `Trust`.
        features: ``[N, F]``, transformed.
        right: ``[N]`` bool.
        tre_mm: ``[N]``, NaN where nothing corresponds.
        person: ``[N]``, whose MRI.
        kind: ``[N]`` of pair.
        pair: ``[N]`` its name.
        other: ``[N]``, whose ultrasound, where that is another's.
    """

    numbers: np.ndarray
    features: np.ndarray
    right: np.ndarray
    tre_mm: np.ndarray
    person: np.ndarray
    kind: np.ndarray
    pair: np.ndarray
    other: np.ndarray

    def part(self, mask: np.ndarray) -> Rows:
        return Rows(*(array[mask] for array in vars(self).values()))

    @property
    def strangers(self) -> np.ndarray:
        """Bool ``[N]``: pairs that do not belong together."""
        return (self.kind != OWN) & (self.kind != NEAR)

    @property
    def raw_error_mm(self) -> np.ndarray:
        """``[N]``; infinite where it could not be determined."""
        given = [n["raw_error_mm"] for n in self.numbers]
        return np.array([np.inf if error is None else error for error in given])


def read_rows(files: Sequence[Path], names: Sequence[str]) -> tuple[Rows, int]:
    """All judged transforms, and how many pairs that belong together led to none.

    A displaced transform within `RIGHT_MM` is left out: it is neither a result nor a miss.

    Args:
        files: what `trust_pairs` wrote.
        names: of the features wanted.

    Raises:
        InputError: they come from several encoders, whose evidence differs.
    """
    written = []
    for file in files:  # each ran on its own, so that equal names are different pairs
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        written += [row | {"pair": f"{file.stem}|{row['pair']}"} for row in rows]
    encoders = {row["weights"] for row in written}
    if len(encoders) != 1:
        raise InputError(f"pairs of one encoder expected, got {sorted(encoders)}; run them again")
    lost = sum(row["kind"] == OWN for row in written if row["trust"] is None)
    rows = [row for row in written if row["trust"] is not None]
    rows = [row for row in rows if row["kind"] != NEAR or row["tre_mm"] > RIGHT_MM]
    numbers = [row["trust"] for row in rows]
    features = np.array([[transformed(name, n) for name in names] for n in numbers])
    tre = np.array([np.nan if row["tre_mm"] is None else row["tre_mm"] for row in rows])
    text = (np.array([str(row[k]) for row in rows]) for k in ("head", "kind", "pair", "other"))
    kept = np.array(numbers, dtype=object)
    return Rows(kept, features, tre <= RIGHT_MM, tre, *text), lost


def weights_of(rows: Rows) -> np.ndarray:
    """``[N]``, sum 1. Right and wrong count alike. Among the right every person does, one with real
    ultrasound `REAL_WORTH` times as much."""
    weight = np.zeros(len(rows.right))
    for person in np.unique(rows.person):
        part = rows.right & (rows.person == person)
        worth = REAL_WORTH if person.startswith("Case") else 1.0
        weight[part] = worth / max(1, part.sum())
    near, strangers = (~rows.right & part for part in (~rows.strangers, rows.strangers))
    for part, share in ((near, NEAR_SHARE), (strangers, 1 - NEAR_SHARE)):
        weight[part] = share / max(1, part.sum())
    for part in (rows.right, ~rows.right):
        weight[part] /= 2 * weight[part].sum()
    return weight


def pair_confidence(rows: Rows, confidence: np.ndarray) -> np.ndarray:
    """Largest confidence of any transform that was judged for each pair of strangers, ``[P]``: a
    registration goes on looking until it trusts one."""
    pairs, values = rows.pair[rows.strangers], confidence[rows.strangers]
    return np.array([values[pairs == pair].max() for pair in np.unique(pairs)])
