"""Quality of a registration, given corresponding landmarks."""

from __future__ import annotations

import torch

from ..estimation.target_error import target_errors
from ..geometry.transform import Matrix
from ..registration.result import Registration

CLOSE_MM = 5.0  # a match nearer to the truth than this is right (CrossKEY paper)


def matching_precision(result: Registration, truth: Matrix) -> float:
    """Share of the reported matches whose ends lie within 5 mm of each other under ``truth``."""
    fixed, moving = result.reported_points()
    if len(fixed) == 0:
        return 0.0
    return float(_correct(truth, fixed, moving).double().mean())


def matching_score(result: Registration, truth: Matrix) -> float:
    """Correct matches, of all that were used, over described points of the iUS (CrossKEY paper:
    correct matches over keypoints)."""
    correct = _correct(truth, *result.matched_points())
    return float(correct.sum()) / max(len(result.moving), 1)


def _correct(truth: Matrix, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    return target_errors(truth, fixed, moving) < CLOSE_MM
