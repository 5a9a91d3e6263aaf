"""How good a registration is, given corresponding landmarks."""

from __future__ import annotations

from ..estimation.target_error import target_errors
from ..geometry.transform import Matrix
from ..registration.pipeline import Registration

CLOSE_MM = 5.0  # a match nearer to the truth than this is right (CrossKEY paper)


def matching_precision(result: Registration, truth: Matrix) -> float:
    """Share of the matches whose ends lie within 5 mm of each other under ``truth``."""
    fixed, moving = result.matched_points()
    if len(fixed) == 0:
        return 0.0
    near = target_errors(truth, fixed, moving) < CLOSE_MM
    return float(near.double().mean())
