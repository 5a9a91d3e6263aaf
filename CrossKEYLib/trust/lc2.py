"""LC2: the share of the ultrasound that MRI intensity and MRI gradient explain locally.

Fuerst, Wein, Müller, Navab, Medical Image Analysis 18(8), 2014: in every small patch the iUS is
fitted by ``a + b p + c g``, with p the intensity of the MRI and g its gradient magnitude. Each
patch has its own fit, so tissue may be bright or dark in either image. Where the images show
different tissue, no such fit holds. `mind_margin.py` compares borders of tissue, this module the
tissue between them.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ..geometry import transform
from ..geometry.filters import box_mean
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume

STEP_MM = 1.0
SHIFT_VOXELS = 4  # along one axis; as far along two or three, as nearly as voxels allow
PATCH_VOXELS = 5
_ALONG = (0, SHIFT_VOXELS, 3, 2)  # voxels along each of so many axes: 4.0, 4.2 and 3.5 mm
_SHIFTS = [
    tuple(_ALONG[np.count_nonzero(way)] * step for step in way)
    for way in itertools.product((-1, 0, 1), repeat=3)
    if any(way)
]
_STRIDE = 3  # voxels between patches
_FEWEST = 50  # patches that must lie wholly on the MRI
_RIDGE = 1e-3  # of the fits, in variances of the MRI
_WHOLE = 1 - 1e-4  # of a patch, up to rounding


def explained(moments: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Explained variance of the iUS in each patch ``[N]``, and the whole variance ``[N]``.

    Args:
        moments: ``[9, N]`` means over each patch of u, p, g, uu, pp, gg, up, ug and pg: iUS, MRI
            and the MRI's gradient magnitude, and their products.
        ridge: added to the variances of p and g.
    """
    u, p, g, uu, pp, gg, up, ug, pg = moments
    uu, pp, gg = uu - u * u, pp - p * p + ridge, gg - g * g + ridge
    up, ug, pg = up - u * p, ug - u * g, pg - p * g
    return (up * up * gg - 2 * up * ug * pg + ug * ug * pp) / (pp * gg - pg * pg), uu


def lc2_margin(mri: Volume, ius: Volume, matrix: Matrix) -> float | None:
    """How much more of the iUS the MRI explains at a transform than on average 4 mm away.

    Args:
        mri: zero where it shows nothing.
        ius: zero outside its field of view.
        matrix: ``T_fixed_moving``, 4x4, RAS mm.

    Returns:
        The explained share of the variance minus its mean over 26 directions, relative to it: 1
        where nothing is explained 4 mm away, 0 where as much is. None where too little of the
        ultrasound lies on the MRI.
    """
    grid = Grid.along(ius, STEP_MM)
    u = ius.resample(grid).array
    filled = _filled(ius, grid)
    p, g, shown = _seen(mri.moved(transform.invert(matrix)), grid)
    of_ius = box_mean(torch.stack([u, u * u, filled]), PATCH_VOXELS, _STRIDE)
    of_mri = box_mean(torch.stack([p, g, p * p, g * g, p * g, shown]), PATCH_VOXELS)
    ways = [(0, 0, 0), *_SHIFTS]
    beneath = [_cut(of_mri, grid.shape, way)[:, ::_STRIDE, ::_STRIDE, ::_STRIDE] for way in ways]
    kept = of_ius[2] > _WHOLE
    for there in beneath:
        kept &= there[5] > _WHOLE
    if int(kept.sum()) < _FEWEST:
        return None
    u1, u2 = of_ius[:2, kept]
    both, shares = torch.stack([p, g]), []
    for way, there in zip(ways, beneath, strict=True):
        products = u * _cut(both, grid.shape, way)
        up, ug = box_mean(products, PATCH_VOXELS, _STRIDE)[:, kept]
        p1, g1, p2, g2, pg, _ = there[:, kept]
        part, whole = explained(torch.stack([u1, p1, g1, u2, p2, g2, up, ug, pg]), _RIDGE)
        shares.append(float(part.sum() / whole.sum().clamp_min(1e-12)))
    here = shares[0]
    return (here - float(np.mean(shares[1:]))) / max(here, 1e-6)


def _seen(mri: Volume, grid: Grid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Intensity, gradient magnitude, both in standard deviations, and where the MRI shows anything
    (0 or 1), on ``grid`` and `SHIFT_VOXELS` around it."""
    around = transform.from_parts(np.eye(3), np.full(3, -SHIFT_VOXELS))
    k, j, i = (n + 2 * SHIFT_VOXELS for n in grid.shape)
    wide = Grid((k, j, i), grid.ijk_to_ras @ around)
    p, shown = mri.resample(wide).array, _filled(mri, wide)
    g = torch.stack(torch.gradient(p)).norm(dim=0)
    inside = shown > 0
    if not bool(inside.any()):
        return p, g, shown
    p, g = (x / x[inside].std().clamp_min(1e-9) for x in (p - p[inside].mean(), g))
    return p, g, shown


def _filled(volume: Volume, grid: Grid) -> torch.Tensor:
    """1 where all of the samples around are above zero, else 0."""
    above = volume.replaced((volume.array > 0).float())
    return (above.resample(grid).array > _WHOLE).float()


def _cut(wide: torch.Tensor, shape: tuple[int, int, int], way: tuple[int, ...]) -> torch.Tensor:
    """What lies under a grid of that shape, shifted by ``way`` voxels: ``[C, *shape]``."""
    for axis, (step, size) in enumerate(zip(way, shape, strict=True), start=1):
        wide = wide.narrow(axis, SHIFT_VOXELS + step, size)
    return wide
