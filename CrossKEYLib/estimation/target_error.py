"""Target registration error and the rigid fit of landmarks."""

from __future__ import annotations

import torch

from ..geometry import transform
from ..geometry.transform import Matrix
from . import kabsch


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
    """Rigid transform that fits the landmarks best; the reference by which matches are right or
    not."""
    return kabsch(landmarks_fixed.double(), landmarks_moving.double()).cpu().numpy()
