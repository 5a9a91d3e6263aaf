"""MIND-SSC, the self-similarity context, for images of different modality.

Heinrich, Jenkinson, Papiez, Brady, Schnabel, MICCAI 2013: at every voxel twelve distances between
neighbouring patches, relative to their mean, describe the local shape and not the intensities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...transform import Matrix
from ...volume import Volume
from .grids import Overlay, box_mean, overlap_factor
from .images import Pair
from .search import SearchConfig, search

_SIX = ((0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0))


@dataclass(frozen=True)
class MindConfig:
    """Settings of the descriptor and of its optimisation."""

    spacing_mm: tuple[float, ...] = (2.0, 1.0)  # of the levels
    radius_voxels: int = 1  # of a patch
    reach_voxels: int = 1  # between a voxel and its neighbours ("dilation")
    least_overlap: float = 0.5  # of the field of view with the MRI
    search: SearchConfig = field(default_factory=SearchConfig)


class Mind:
    """Minus the mean squared difference of descriptors on one resolution level.

    The MRI is resampled before it is described: descriptors of a turned image are not those of
    the image turned.
    """

    def __init__(self, pair: Pair, spacing_mm: float, config: MindConfig) -> None:
        self.overlay = Overlay.of(pair, spacing_mm)
        self.config = config
        self.described = describe(self.overlay.ius, config)
        self.whole = self._inner(self.overlay.mask)

    def __call__(self, matrix: Matrix) -> float:
        mri, mask = self.overlay.seen(matrix)
        inner = self._inner(mask)
        factor = overlap_factor(inner, self.whole, self.config.least_overlap)
        if factor == 0:
            return -1.0
        difference = (describe(mri[0], self.config) - self.described).square().mean(0)
        distance = float((difference * inner).sum() / inner.sum())
        return factor * (1 - distance) - 1

    def _inner(self, mask: torch.Tensor) -> torch.Tensor:
        """Where a descriptor sees nothing outside the mask."""
        size = 2 * (self.config.radius_voxels + self.config.reach_voxels) + 1
        return (box_mean(mask[None], size)[0] > 1 - 1e-4).float()


def describe(image: torch.Tensor, config: MindConfig) -> torch.Tensor:
    """MIND-SSC ``[12, K, J, I]`` of an image ``[K, J, I]``, each in (0, 1]."""
    reach = config.reach_voxels
    padded = torch.nn.functional.pad(image[None, None], (reach,) * 6, mode="replicate")[0, 0]
    k, j, i = image.shape
    around = [
        padded[
            reach * (1 + a) : reach * (1 + a) + k,
            reach * (1 + b) : reach * (1 + b) + j,
            reach * (1 + c) : reach * (1 + c) + i,
        ]
        for a, b, c in _SIX
    ]
    # Of the fifteen pairs, the three that lie opposite each other are left out.
    pairs = [
        (around[m] - around[n]).square()
        for m in range(6)
        for n in range(m + 1, 6)
        if m // 2 != n // 2
    ]
    distance = box_mean(torch.stack(pairs), 2 * config.radius_voxels + 1)
    distance = distance - distance.amin(0)
    variance = distance.mean(0)
    typical = variance.mean()
    variance = variance.clamp(1e-3 * float(typical), 1e3 * float(typical)).clamp_min(1e-12)
    return torch.exp(-distance / variance)


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: MindConfig | None = None
) -> Matrix:
    """Move the iUS from where it lies to a maximum of MIND-SSC's agreement.

    Args:
        fixed, moving: MRI and iUS, as read.
        seed: of the tries around the start.
        config: settings.

    Returns:
        ``T_fixed_moving``, 4x4, RAS mm.

    Raises:
        InputError: an image that holds nothing.
    """
    config = config or MindConfig()
    pair = Pair.of(fixed, moving)
    levels = [Mind(pair, spacing, config) for spacing in config.spacing_mm]
    return search(levels, pair.centre_ras, np.random.default_rng(seed), config.search)
