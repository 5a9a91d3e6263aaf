"""Which points of an image are described for matching.

The iUS side takes few, salient points; the MRI side offers every place in the brain where both
modalities may show structure. A keypoint of the iUS then has a counterpart within half the
spacing even where a detector would have fired in one image alone.
"""

from __future__ import annotations

import torch

from .errors import InputError
from .volume import Grid, Volume, gaussian


def fixed_points(saliency: Volume, spacing_mm: float = 2.0, floor: float = 0.02) -> torch.Tensor:
    """Every ``spacing_mm`` where the saliency of the MRI exceeds ``floor``; ``[M, 3]`` RAS mm."""
    grid = Grid.around(saliency.corners_ras(), spacing_mm, -spacing_mm / 2)
    points = grid.points(saliency.device).reshape(-1, 3)
    return points[saliency.sample(points) > floor]


def moving_points(ius: Volume, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random points of the iUS, mostly on what is bright and not mere speckle; ``[N, 3]`` RAS mm.

    Bright lines are pia, vessels and cyst walls, which the MRI shows as well.

    Args:
        ius: scaled to [0, 1], zero outside the field of view.
        count: how many.
        generator: CPU generator.

    Raises:
        InputError: nothing but zeros.
    """
    blurred = gaussian(ius.array, [1.0 / float(s) for s in ius.spacing_mm[::-1]])
    inside = (ius.array > 0).nonzero()
    if len(inside) == 0:
        raise InputError("the ultrasound is empty: all samples are zero")
    weight = blurred[tuple(inside.T)].square().cpu()
    if len(weight) > 2**23:  # more categories than torch.multinomial can take
        keep = torch.randperm(len(weight), generator=generator)[: 2**23]
        inside, weight = inside[keep.to(inside.device)], weight[keep]
    chosen = torch.multinomial(weight, min(count, len(weight)), generator=generator)
    return ius.points_ras(inside[chosen.to(inside.device)].float())
