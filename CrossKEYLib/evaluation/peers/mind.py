"""Rigid registration by MIND-SSC: the transform at which self-similarities differ least."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ...config import Settings
from ...config.values import Count, Positive, PositiveShare
from ...descriptors.mind import self_similarity
from ...geometry.filters import box_mean
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from .grids import Overlay, overlap_factor
from .images import Pair
from .search import ClimbConfig, register_by


@dataclass(frozen=True)
class MindConfig(Settings):
    """Settings of the descriptor and of its optimisation."""

    spacing_mm: tuple[Positive, ...] = (2.0, 1.0)  # of the levels
    radius_voxels: Count = 1  # of a patch
    reach_voxels: Count = 1  # between a voxel and its neighbours ("dilation")
    least_overlap: PositiveShare = 0.5  # of the field of view with the MRI
    search: ClimbConfig = field(default_factory=ClimbConfig)


class Mind:
    """Minus the mean squared difference of descriptors on one resolution level.

    The MRI is resampled before it is described, because descriptors of a rotated image differ
    from rotated descriptors.
    """

    def __init__(self, pair: Pair, spacing_mm: float, config: MindConfig) -> None:
        self.overlay, self.config = Overlay.of(pair, spacing_mm), config
        self.described = self._describe(self.overlay.ius)
        self.whole = self._inner(self.overlay.mask)

    def __call__(self, matrix: Matrix) -> float:
        mri, mask = self.overlay.seen(matrix)
        inner = self._inner(mask)
        factor = overlap_factor(inner, self.whole, self.config.least_overlap)
        if factor == 0:
            return -1.0
        difference = (self._describe(mri[0]) - self.described).square().mean(0)
        distance = float((difference * inner).sum() / inner.sum())
        return factor * (1 - distance) - 1

    def _describe(self, image: torch.Tensor) -> torch.Tensor:
        return self_similarity(image, self.config.radius_voxels, self.config.reach_voxels)

    def _inner(self, mask: torch.Tensor) -> torch.Tensor:
        """Voxels whose descriptor uses only voxels inside of the mask."""
        size = 2 * (self.config.radius_voxels + self.config.reach_voxels) + 1
        return (box_mean(mask[None], size)[0] > 1 - 1e-4).float()


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: MindConfig | None = None
) -> Matrix:
    """Register the iUS from its present pose by MIND-SSC; see `search.register_by`."""
    return register_by(Mind, fixed, moving, seed, config or MindConfig())
