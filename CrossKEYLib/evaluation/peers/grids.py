"""The iUS on a coarse grid, and the MRI sampled at any pose of that grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...geometry import transform
from ...geometry.filters import sample_channels
from ...geometry.transform import Matrix
from ...geometry.volume import Grid, Volume
from .images import Pair


@dataclass(frozen=True, eq=False)
class Overlay:
    """One resolution level.

    Attributes:
        ius: ``[K, J, I]``.
        mask: the same shape, 1 in the field of view.
        points: ``[K, J, I, 3]`` RAS mm of the iUS.
        mri: ``[C, K', J', I']`` the channels that are compared with it, smoothed to this level.
        ras_to_ijk: of the MRI.
    """

    ius: torch.Tensor
    mask: torch.Tensor
    points: torch.Tensor
    mri: torch.Tensor
    ras_to_ijk: Matrix

    @classmethod
    def of(cls, pair: Pair, spacing_mm: float) -> Overlay:
        """Both images at this resolution, the grid along the axes of the iUS."""
        grid = Grid.along(pair.ius, spacing_mm)
        return cls(
            pair.ius.resample(grid).array,
            (pair.mask.resample(grid).array > 0.5).float(),
            grid.points(),
            pair.mri.smoothed(spacing_mm).array[None],
            pair.mri.ras_to_ijk,
        )

    def seen(self, matrix: Matrix) -> tuple[torch.Tensor, torch.Tensor]:
        """MRI channels ``[C, K, J, I]`` at the pose ``T_fixed_moving`` of the iUS, and a mask: in
        the field of view and inside the MRI's box."""
        at = transform.apply(matrix, self.points)
        last = torch.tensor(self.mri.shape[:0:-1], dtype=at.dtype) - 1
        ijk = transform.apply(self.ras_to_ijk, at)
        inside = ((ijk >= 0) & (ijk <= last)).all(-1)
        return sample_channels(self.mri, self.ras_to_ijk, at), self.mask * inside


def gradient_magnitude(volume: Volume, smooth: torch.Tensor) -> torch.Tensor:
    """Of ``smooth [K, J, I]`` on the volume's grid, per mm."""
    slopes = torch.gradient(smooth, spacing=[float(s) for s in volume.spacing_mm[::-1]])
    return torch.stack(slopes).norm(dim=0)


def overlap_factor(mask: torch.Tensor, whole: torch.Tensor, least: float) -> float:
    """1 if at least a share ``least`` of the field of view is compared, falling to 0 below. Without
    it, a similarity could be raised by leaving the MRI."""
    share = float(mask.sum() / whole.sum().clamp_min(1))
    return float(np.clip(share / least, 0, 1))
