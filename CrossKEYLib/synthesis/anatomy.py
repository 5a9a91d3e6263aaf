"""Anatomy that an ultrasound probe would show, derived from the MRI of a brain.

Ultrasound of the brain shows interfaces more than tissue: the pia in sulci and the falx, vessel
walls and cyst walls are thin bright lines, large fluid is dark, tumour and oedema are brighter
than healthy tissue. The maps made here locate these structures; their brightness is drawn anew for
every synthetic volume (`style.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..geometry.brain import brain_mask
from ..geometry.filters import gaussian
from ..geometry.intensity import rescaled, thinned
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume

CREST_MM = 0.7  # half width of the bright line at the middle of a thin fluid space
RIDGE_MM = 0.8  # scale (Gaussian sigma) at which thin structures are detected
FAINT = 0.1  # curvature per mm^2 over tissue level, below which it may be noise
MARGIN_MM = 8.0  # kept around the brain


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Maps on a 1 mm grid around the brain, in the MRI's world; all in [0, 1].

    Attributes:
        tissue: ``[C, K, J, I]`` intensity of each of the C contrasts.
        maps: ``[4, K, J, I]``: thin fluid sheets, large fluid, vessels, brain mask.
        ijk_to_ras: ``[4, 4]`` of that grid.
        surface: ``[S, 6]`` points on the brain surface (RAS mm) with inward unit normals.
    """

    tissue: torch.Tensor
    maps: torch.Tensor
    ijk_to_ras: Matrix
    surface: torch.Tensor

    @property
    def brain(self) -> Volume:
        return Volume(self.maps[3], self.ijk_to_ras)

    def saliency(self) -> Volume:
        """Structures that both modalities may show, in [0, 1], slightly blurred."""
        sheets, fluid, vessels, brain = self.maps
        salient = sheets + 0.5 * vessels + 2 * gradient_magnitude(gaussian(fluid, 1.0))
        return Volume(gaussian(salient.clamp(0, 1) * brain, 1.0), self.ijk_to_ras)


def read_anatomy(contrasts: Sequence[Volume], brain: Volume | None = None) -> Anatomy:
    """Derive the maps from one or several MR contrasts sharing one world.

    Args:
        contrasts: MRI of one patient; grids may differ, the world must be the same.
        brain: optional brain mask; estimated from the first contrast when missing.

    Raises:
        InputError: no contrast given, one is constant, or no brain is found.
    """
    if not contrasts:
        raise InputError("synthesis needs at least one MRI")
    brain = brain or brain_mask(contrasts[0])
    if not bool((brain.array > 0).any()):
        raise InputError("no brain found in the MRI; check that it is a brain MRI")
    inside = brain.points_ras((brain.array > 0).nonzero()).cpu().numpy()
    axes = _axes(contrasts[0])
    grid = Grid.around(inside, 1.0, MARGIN_MM, axes)
    mask = brain.resample(grid, "nearest").array
    first, *others = (_read_contrast(volume, grid, mask) for volume in contrasts)
    sheets, fluid, vessels = torch.stack([m for _, m in (first, *others)]).mean(0)
    tissue = torch.stack([t for t, _ in (first, *others)])
    surface = surface_of(Volume(mask, grid.ijk_to_ras))
    return Anatomy(tissue, torch.stack([sheets, fluid, vessels, mask]), grid.ijk_to_ras, surface)


def surface_of(mask: Volume, count: int = 4000) -> torch.Tensor:
    """Points on the rim of a mask with inward normals, ``[S, 6]`` (RAS mm)."""
    soft = gaussian(mask.array, 3.0)
    eroded = -_box_maximum(-mask.array, 3)
    kji = ((mask.array > 0) & (eroded == 0)).nonzero()
    kji = kji[:: max(1, len(kji) // count)]
    slope = torch.stack(torch.gradient(soft), -1)[tuple(kji.T)]
    axes = torch.as_tensor(mask.ijk_to_ras[:3, :3], dtype=torch.float32, device=slope.device)
    normal = slope.flip(-1) @ axes.T
    length = normal.norm(dim=-1, keepdim=True)
    points = torch.cat([mask.points_ras(kji), normal / length.clamp_min(1e-6)], -1)
    return points[length[:, 0] > 1e-6]


def gradient_magnitude(x: torch.Tensor) -> torch.Tensor:
    """Length of the central-difference gradient of ``[K, J, I]``, per voxel."""
    return torch.stack(torch.gradient(x)).square().sum(0).sqrt()


def _axes(volume: Volume) -> np.ndarray:
    """The volume's own axes where they are orthogonal, RAS otherwise; columns, right-handed."""
    axes = volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    return axes if np.abs(axes.T @ axes - np.eye(3)).max() < 1e-3 else np.eye(3)


def _read_contrast(
    volume: Volume, grid: Grid, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue intensity ``[K, J, I]`` and the maps (sheets, fluid, vessels) of one contrast."""
    array = rescaled(volume).resample(grid).array
    covered = volume.replaced(torch.ones_like(volume.array)).sample(grid.points(volume.device))
    inside = (mask > 0) & (covered > 0.999)
    # Outside the brain is set to tissue level, or the skull and its gap would look like sulci.
    level = float(array[inside].median())
    filled = torch.where(inside, array, level)
    smooth = gaussian(filled, 0.6)
    sharp, blurred = filled, smooth
    if _fluid_is_bright(smooth, inside):
        sharp, blurred = 1 - filled, 1 - smooth  # fluid is dark in both
    level = float(sharp[inside].median())
    fluid = ((0.6 * level - blurred) / (0.2 * level + 1e-6)).clamp(0, 1)
    thick = _box_maximum(-_box_maximum(-fluid, 3), 5) * fluid * mask  # opening keeps the thick
    largest, middle, offset = curvatures(gaussian(sharp, RIDGE_MM))
    # A dark sheet curves upwards across itself; a bright tube downwards in two directions.
    crest = torch.exp(-0.5 * (offset / CREST_MM).square())
    sheets = _stretched(largest, inside, 0.97, FAINT * level) * crest * (1 - thick)
    vessels = _stretched(-middle, inside, 0.99, FAINT * level / 4)
    return smooth, torch.stack([sheets, thick, vessels])


def curvatures(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Largest and middle eigenvalue of the Hessian of ``[K, J, I]``, and the distance in voxels
    to the bottom of the valley along the largest one.

    Closed form for symmetric 3x3 matrices (O. K. Smith, Communications of the ACM 4(4), 1961).
    """
    slopes = torch.gradient(x)
    aa, bb, cc = second_differences(x)
    ab, ac = (torch.gradient(slopes[0], dim=d)[0] for d in (1, 2))
    bc = torch.gradient(slopes[1], dim=2)[0]
    mean = (aa + bb + cc) / 3
    aa, bb, cc = aa - mean, bb - mean, cc - mean
    size = ((aa**2 + bb**2 + cc**2 + 2 * (ab**2 + ac**2 + bc**2)) / 6).clamp_min(1e-20).sqrt()
    determinant = aa * (bb * cc - bc**2) - ab * (ab * cc - bc * ac) + ac * (ab * bc - bb * ac)
    angle = torch.acos((determinant / (2 * size**3)).clamp(-1, 1)) / 3
    largest = mean + 2 * size * torch.cos(angle)
    smallest = mean + 2 * size * torch.cos(angle + 2 * torch.pi / 3)
    # One Newton step along the bending direction e: (slope . e) / largest, where H slope is nearly
    # largest (slope . e) e.
    a, b, c = slopes
    turned = (
        (aa + mean) * a + ab * b + ac * c,
        ab * a + (bb + mean) * b + bc * c,
        ac * a + bc * b + (cc + mean) * c,
    )
    offset = torch.stack(turned).square().sum(0).sqrt() / largest.square().clamp_min(1e-12)
    return largest, 3 * mean - largest - smallest, offset


def second_differences(x: torch.Tensor) -> list[torch.Tensor]:
    """Of ``[K, J, I]`` along each axis, per voxel squared; beyond the border the edge repeats."""
    wide = F.pad(x[None, None], [1] * 6, mode="replicate")[0, 0]
    core = [slice(1, -1)] * 3
    return [
        wide[(*core[:d], slice(2, None), *core[d + 1 :])]
        + wide[(*core[:d], slice(None, -2), *core[d + 1 :])]
        - 2 * x
        for d in range(3)
    ]


def _fluid_is_bright(array: torch.Tensor, inside: torch.Tensor) -> bool:
    """Whether fluid is the bright tail (T2) or the dark one (T1, FLAIR) of brain intensities."""
    # Deep inside only: fat and bone that a rough mask kept lie at its rim.
    deep = -_box_maximum(-inside.float(), 21) > 0
    values = thinned(array[deep if bool(deep.any()) else inside], 500_000)
    q = torch.tensor([0.01, 0.5, 0.99], device=values.device)
    low, middle, high = torch.quantile(values, q).tolist()
    return high - middle > 1.8 * (middle - low)


def _box_maximum(array: torch.Tensor, size: int) -> torch.Tensor:
    """Largest value in a cube of odd edge ``size``; separable, so three passes of length size."""
    x = array[None]
    for axis in range(3):
        kernel, pad = [1, 1, 1], [0, 0, 0]
        kernel[axis], pad[axis] = size, size // 2
        x = F.max_pool3d(x, kernel, 1, pad)
    return x[0]


def _stretched(x: torch.Tensor, inside: torch.Tensor, top: float, faintest: float) -> torch.Tensor:
    """Scale so that this quantile inside, or ``faintest`` if larger, becomes 1; clip to [0, 1]."""
    full = max(float(torch.quantile(thinned(x[inside], 500_000), top)), faintest, 1e-6)
    return (x / full).clamp(0, 1) * inside
