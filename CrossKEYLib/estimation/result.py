"""The result of an estimation, with or without a transform."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..geometry.transform import Matrix


@dataclass(frozen=True, eq=False)
class RigidResult:
    """A transform, or the reason why there is none; false in the second case.

    Attributes:
        matrix: ``T_fixed_moving``, 4x4 float64, RAS mm (affine when that was asked for); None on
            failure, never identity.
        inliers: ``[K]`` bool, the matches within the inlier threshold.
        rms_mm: root mean square residual of the inliers, None on failure.
        n_inliers: their number.
        reason: one plain sentence on failure, None on success.
    """

    matrix: Matrix | None
    inliers: torch.Tensor
    rms_mm: float | None
    n_inliers: int
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.matrix is not None

    @classmethod
    def failure(cls, reason: str, inliers: torch.Tensor) -> RigidResult:
        """A result without transform; ``inliers`` is ``[K]`` bool, all false."""
        return cls(None, inliers, None, 0, reason)
