"""Starts of registrations: known misplacements of the iUS, of increasing size."""

from __future__ import annotations

import numpy as np

from ..geometry import transform
from ..geometry.transform import Matrix

# mm, degrees
LEVELS = {"0 / 0": (0, 0), "5 / 5": (5, 5), "10 / 10": (10, 10), "20 / 20": (20, 20)}
LEVELS["30 / 30"] = (30, 30)
ARBITRARY = "arbitrary"
ARBITRARY_MM = 100.0


def start_of(level: str, seed: int, centre: np.ndarray) -> Matrix:
    """The displacement (4x4, RAS mm) of one level and seed; "arbitrary" turns to any side."""
    rng = np.random.default_rng((seed, 2026))
    if level == ARBITRARY:
        return transform.arbitrary_rigid(rng, ARBITRARY_MM, centre)
    return transform.random_rigid(rng, *LEVELS[level], centre)
