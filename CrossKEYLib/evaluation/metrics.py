"""How good a registration is, given corresponding landmarks."""

from __future__ import annotations

import torch

from .. import transform
from ..estimation import kabsch
from ..registration import Registration
from ..transform import Matrix

CLOSE_MM = 5.0  # a match nearer to the truth than this is right (CrossKEY paper)


def target_errors(
    matrix: Matrix, landmarks_fixed: torch.Tensor, landmarks_moving: torch.Tensor
) -> torch.Tensor:
    """Target registration error of each landmark pair, ``[N]`` mm.

    Args:
        matrix: ``T_fixed_moving``, 4x4, RAS mm.
        landmarks_fixed, landmarks_moving: ``[N, 3]`` RAS mm.
    """
    moved = transform.apply(matrix, landmarks_moving.double())
    return (moved - landmarks_fixed.double()).norm(dim=1)


def landmark_fit(landmarks_fixed: torch.Tensor, landmarks_moving: torch.Tensor) -> Matrix:
    """Rigid transform that fits the landmarks best: the reference for matches."""
    return kabsch(landmarks_fixed.double(), landmarks_moving.double()).cpu().numpy()


def matching_precision(result: Registration, truth: Matrix) -> float:
    """Share of the matches whose ends lie within 5 mm of each other under ``truth``."""
    fixed, moving = result.matched_points()
    if len(fixed) == 0:
        return 0.0
    near = target_errors(truth, fixed, moving) < CLOSE_MM
    return float(near.double().mean())
