"""Where an image shows something to describe."""

from __future__ import annotations

import torch

from .ct import windowed
from .filters import gaussian
from .intensity import rescaled
from .volume import Volume

FOREGROUND = 0.08  # of the scaled intensity, smoothed: above it there is something to describe
_SMOOTH_MM = 2.0


def shown(image: Volume) -> torch.Tensor:
    """Bool ``[K, J, I]``; smoothed, as air is seldom quite dark.

    Raises:
        InputError: the image is constant.
    """
    scaled = rescaled(windowed(image))
    sigmas = [_SMOOTH_MM / float(s) for s in image.spacing_mm[::-1]]
    return gaussian(scaled.array, sigmas) > FOREGROUND


def shown_points(image: Volume, count: int, seed: int = 0) -> torch.Tensor:
    """Random places that an image shows, ``[N, 3]`` RAS mm; fewer where there are not as many.

    Raises:
        InputError: the image is constant.
    """
    inside = shown(image).nonzero()
    pick = torch.randperm(len(inside), generator=torch.Generator().manual_seed(seed))[:count]
    return image.points_ras(inside[pick.to(inside.device)].float())
