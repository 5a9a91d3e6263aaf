"""Whether two images show the same structure where a pose lays them: a check without descriptors.

Descriptors of an image that is shaped like a cube may tell where in the cube a place lies, and then
agree on a wrong pose. The intensities do not: patches of the same tissue are related linearly,
whichever contrast they have, and those of other tissue are not (after LC2, Wein et al., Medical
Image Analysis 12(5), 2008).
"""

from __future__ import annotations

import itertools

import torch

from ..geometry.ct import windowed
from ..geometry.transform import Matrix, apply
from ..geometry.volume import Volume

# Five pairs of contrasts of four validation heads: at least 0.013 in poses up to 2.5 mm and 2
# degrees off, at most -0.001 in wrong ones.
CLEAR_MARGIN = 0.005
_SHIFT_MM = 8.0  # a coarse pose is up to 3 mm off
_POINTS = 300
_REACH, _STEP_MM = 3, 2.0  # a patch has 7 samples to each side, 2 mm apart
_FEWEST = 30


def structure_margin(fixed: Volume, moving: Volume, T_fixed_moving: Matrix) -> float:
    """By how much the images agree better at a pose than 8 mm beside it.

    Args:
        fixed, moving: images of any contrast.
        T_fixed_moving: 4x4, RAS mm.

    Returns:
        The mean squared correlation of small patches at the pose, less that at the best of 14
        places around it; at most 1. 0 where the images hardly overlap.
    """
    fixed, moving = windowed(fixed), windowed(moving)
    centres = _inner(moving)
    centres = centres[fixed.contains(apply(T_fixed_moving, centres), _SHIFT_MM)][:_POINTS]
    if len(centres) < _FEWEST:
        return 0.0
    line = _STEP_MM * torch.arange(-_REACH, _REACH + 1).to(centres)
    places = centres[:, None] + torch.cartesian_prod(line, line, line)
    own = _standardised(moving.sample(places))
    laid = apply(T_fixed_moving, places)

    def agreement(shift: tuple[int, ...]) -> float:
        step = torch.tensor(shift).to(laid)
        step = step * (_SHIFT_MM / step.norm().clamp_min(1))
        return float((own * _standardised(fixed.sample(laid + step))).sum(1).square().mean())

    ways = [w for w in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, w)) in (1, 3)]
    return agreement((0, 0, 0)) - max(agreement(way) for way in ways)


def confirmed(fixed: Volume, moving: Volume, T_fixed_moving: Matrix) -> bool:
    """Whether the structure of the images speaks for a pose, 4x4, RAS mm."""
    return structure_margin(fixed, moving, T_fixed_moving) >= CLEAR_MARGIN


def _inner(image: Volume) -> torch.Tensor:
    """Random places ``[N, 3]``, RAS mm, brighter than the image on average."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(image.shape)
    kji = (torch.rand(40 * _POINTS, 3, generator=generator) * size).long().to(image.device)
    values = image.array[tuple(kji.T)]
    return image.points_ras(kji[values > values.mean()].float())


def _standardised(patches: torch.Tensor) -> torch.Tensor:
    """Each row ``[N, S]`` without its mean and of unit norm; zero where nothing varies."""
    centred = patches - patches.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    return torch.where(norms > 1e-6, centred / norms.clamp_min(1e-6), 0)
