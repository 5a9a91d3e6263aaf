"""Derivative-free maximisation of a similarity over rigid motions, from coarse to fine images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ...config import Settings
from ...config.values import Count, Positive
from ...geometry import transform
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from .images import Pair

Similarity = Callable[[Matrix], float]  # of T_fixed_moving; larger is better


@dataclass(frozen=True)
class ClimbConfig(Settings):
    """Several starts on the coarse level, Powell's method on each level."""

    tries: Count = 300  # random motions around the start, beside the start itself
    spread_mm: Positive = 8.0  # their standard deviation per axis
    spread_deg: Positive = 8.0
    climbs: Count = 3  # the start and the best of these are climbed on the coarse level
    degrees_per_mm: Positive = 2.0  # one unit of rotation moves the rim by about one mm
    first_step: Positive = 2.0  # mm, and as many units of rotation
    evaluations: Count = 300  # of the similarity, per climb
    tolerance_mm: Positive = 0.05


def search(
    levels: Sequence[Similarity],
    centre: np.ndarray,
    rng: np.random.Generator,
    config: ClimbConfig,
) -> Matrix:
    """The best rigid motion near the identity.

    Args:
        levels: the similarity on images of increasing resolution.
        centre: ``[3]`` RAS mm, about which rotations turn: the middle of the moving image.
        rng: of the tries.
        config: settings.

    Returns:
        ``T_fixed_moving``, 4x4, RAS mm.
    """
    coarse = levels[0]
    noise = rng.normal(size=(config.tries, 6))
    tries = transform.perturbations_about(centre, noise, config.spread_mm, config.spread_deg)
    order = np.argsort([-coarse(matrix) for matrix in tries])
    starts = [np.eye(4), *tries[order[: config.climbs - 1]]]
    ends = [climb(coarse, start, centre, config) for start in starts]
    best = max(ends, key=levels[min(1, len(levels) - 1)])  # compared on the finer level
    for similarity in levels[1:]:
        best = climb(similarity, best, centre, config)
    return best


def register_by(
    measure: Callable[[Pair, float, Any], Similarity],
    fixed: Volume,
    moving: Volume,
    seed: int,
    config: Any,
) -> Matrix:
    """``T_fixed_moving`` (4x4, RAS mm) at a maximum of a similarity near the present pose.

    Args:
        measure: makes the similarity of a pair on a level from its spacing (mm) and ``config``.
        fixed, moving: MRI and iUS, as read.
        seed: of the tries around the start.
        config: has ``spacing_mm`` of the levels, and ``search``.

    Raises:
        InputError: an image that holds nothing.
    """
    pair = Pair.of(fixed, moving)
    levels = [measure(pair, spacing, config) for spacing in config.spacing_mm]
    return search(levels, pair.centre_ras, np.random.default_rng(seed), config.search)


def climb(similarity: Similarity, start: Matrix, centre: np.ndarray, config: ClimbConfig) -> Matrix:
    """The maximum that Powell's method reaches from ``start``."""
    middle = start[:3, :3] @ centre + start[:3, 3]

    def moved(x: np.ndarray) -> Matrix:
        step = transform.perturbations_about(middle, x[None], 1.0, config.degrees_per_mm)[0]
        return step @ start

    def loss(x: np.ndarray) -> float:
        return -similarity(moved(x))

    found = minimize(
        loss,
        np.zeros(6),
        method="Powell",
        options={
            "direc": config.first_step * np.eye(6),
            "xtol": config.tolerance_mm / config.first_step,
            "ftol": 1e-4,
            "maxfev": config.evaluations,
        },
    )
    end = moved(found.x)
    return end if similarity(end) >= similarity(start) else start
