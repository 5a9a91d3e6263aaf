"""LC2, the linear correlation of linear combination, for ultrasound and MRI.

Fuerst, Wein, Mueller, Navab, Medical Image Analysis 18(8), 2014: in every patch the ultrasound is
explained as a linear combination of MRI intensity, MRI gradient magnitude and a constant; the
share of its variance that this explains is averaged, weighted by that variance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ...config import Settings
from ...config.values import Count, Positive, PositiveShare, Share
from ...geometry.filters import box_mean
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from ...trust.lc2 import explained
from .grids import Overlay, gradient_magnitude, overlap_factor
from .images import Pair
from .search import ClimbConfig, register_by


@dataclass(frozen=True)
class Lc2Config(Settings):
    """Settings of the similarity and of its optimisation."""

    spacing_mm: tuple[Positive, ...] = (2.0, 1.0)  # of the levels
    patch_voxels: Count = 5  # edge of a patch
    stride_mm: Positive = 3.0  # between patches, which overlap
    least_filled: Share = 0.5  # of a patch
    least_overlap: PositiveShare = 0.5  # of the field of view with the MRI
    ridge: Positive = 1e-5  # of the fits, in squared intensities
    search: ClimbConfig = field(default_factory=ClimbConfig)


class Lc2:
    """The similarity on one resolution level; call it with ``T_fixed_moving``."""

    def __init__(self, pair: Pair, spacing_mm: float, config: Lc2Config) -> None:
        overlay = Overlay.of(pair, spacing_mm)
        slope = gradient_magnitude(pair.mri, overlay.mri[0])
        # The fit does not depend on the scale, but its ridge does.
        slope = slope * overlay.mri[0].std() / slope.std().clamp_min(1e-9)
        self.overlay = replace(overlay, mri=torch.stack([overlay.mri[0], slope]))
        self.stride = max(1, round(config.stride_mm / spacing_mm))
        self.config = config

    def __call__(self, matrix: Matrix) -> float:
        config = self.config
        (p, g), mask = self.overlay.seen(matrix)
        u = self.overlay.ius
        products = torch.stack(
            [torch.ones_like(u), u, p, g, u * u, p * p, g * g, u * p, u * g, p * g]
        )
        mean = box_mean(products * mask, config.patch_voxels, self.stride).flatten(1)
        mean = mean[:, mean[0] > config.least_filled]
        if mean.shape[1] == 0:
            return 0.0
        share = mean[0]
        part, whole = explained(mean[1:] / share, config.ridge)
        similarity = float((share * part).sum() / (share * whole).sum().clamp_min(1e-12))
        return similarity * overlap_factor(mask, self.overlay.mask, config.least_overlap)


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: Lc2Config | None = None
) -> Matrix:
    """Register the iUS from its present pose by LC2; see `search.register_by`."""
    return register_by(Lc2, fixed, moving, seed, config or Lc2Config())
