"""Which points of an image are described for matching.

Of the iUS, few salient points are described; of the MRI, a grid of points in the brain. A point of
the iUS then has a counterpart within half the spacing, even where a detector would respond in one
image only.
"""

from __future__ import annotations

import torch

from ..errors import InputError
from ..geometry.filters import box_mean, gaussian
from ..geometry.volume import Grid, Volume


def fixed_points(brain: Volume, spacing_mm: float = 2.0) -> torch.Tensor:
    """Every ``spacing_mm`` along the RAS axes inside the brain mask; ``[M, 3]`` RAS mm."""
    grid = Grid.around(brain.corners_ras(), spacing_mm, -spacing_mm / 2)
    points = grid.points(brain.device).reshape(-1, 3)
    return points[brain.sample(points) > 0.5]


def moving_points(ius: Volume, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random points of the iUS, mostly on thin bright structure; ``[N, 3]`` RAS mm.

    Such lines are pia, vessels and cyst walls, which the MRI shows as well. A difference of
    Gaussians separates them from their surroundings, but not speckle and the near field.

    Args:
        ius: scaled to [0, 1], zero outside the field of view.
        count: how many.
        generator: CPU generator.

    Raises:
        InputError: nothing but zeros.
    """
    filled = (ius.array > 0).float()
    fine, coarse = (_local_mean(ius, filled, sigma_mm) for sigma_mm in (1.0, 4.0))
    inside = filled.nonzero()
    if len(inside) == 0:
        raise InputError("the ultrasound is empty: all samples are zero")
    # The floor keeps some points everywhere, also in homogeneous images.
    weight = ((fine - coarse).clamp_min(0) + 0.01)[tuple(inside.T)].cpu()
    if len(weight) > 2**23:  # more categories than torch.multinomial can take
        keep = torch.randperm(len(weight), generator=generator)[: 2**23]
        inside, weight = inside[keep.to(inside.device)], weight[keep]
    chosen = torch.multinomial(weight, min(count, len(weight)), generator=generator)
    return ius.points_ras(inside[chosen.to(inside.device)].float())


def interior_points(
    ius: Volume, spacing_mm: float = 1.5, inset_mm: float = 3.0, most: int = 6000
) -> torch.Tensor:
    """Every ``spacing_mm`` in the field of view, ``inset_mm`` from its rim or more, evenly thinned
    to at most ``most``; ``[N, 3]`` RAS mm.

    Args:
        ius: zero outside the field of view.
        spacing_mm, inset_mm, most: see above.
    """
    grid = Grid.along(ius, spacing_mm)
    filled = (ius.replaced((ius.array > 0).float()).resample(grid).array > 0.5).float()
    inside = box_mean(filled[None], 2 * round(inset_mm / spacing_mm) + 1)[0] > 1 - 1e-4
    places = inside.nonzero()
    kept = torch.linspace(0, len(places) - 1, min(most, len(places)), device=places.device)
    return Volume(filled, grid.ijk_to_ras).points_ras(places[kept.long()].float())


def spread_first(points: torch.Tensor, most: int) -> torch.Tensor:
    """Rows of at most ``most`` points, each as far as can be from those before it, so that any
    number of the first ones is spread over all (farthest point sampling: Eldar et al., IEEE
    Transactions on Image Processing 6(9), 1997). The first is row 0.

    Args:
        points: ``[N, D]``.
        most: how many.
    """
    rows: list[int] = []
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    for _ in range(min(most, len(points))):
        rows.append(int(nearest.argmax()))
        nearest = nearest.minimum((points - points[rows[-1]]).norm(dim=1))
        nearest[rows[-1]] = -1  # never twice, where points coincide
    return torch.tensor(rows, dtype=torch.long, device=points.device)


def _local_mean(ius: Volume, filled: torch.Tensor, sigma_mm: float) -> torch.Tensor:
    """Gaussian mean over the field of view only, so that its rim is not salient."""
    sigmas = [sigma_mm / float(s) for s in ius.spacing_mm[::-1]]
    return gaussian(ius.array, sigmas) / gaussian(filled, sigmas).clamp_min(1e-3)
