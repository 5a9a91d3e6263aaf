"""How one ultrasound volume looks, in numbers: brightness, speckle size, profile over depth.

Everything is read off the image alone, the direction of the beam included, so that real and
simulated volumes are measured by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.interpolate import CubicSpline

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.transform import nearest_axes
from CrossKEYLib.geometry.volume import Grid, Volume

BINS = 50  # of intensity, 0 to 1
FINE_MM = 2.5  # Gaussian sigma: what varies more slowly is anatomy or gain, not speckle
HOLE_MM = 2.0  # black places narrower than twice this belong to the field of view
RIM_MM = 2.0  # kept off the border of the field of view when measuring texture
LAGS_MM = 5.0  # farthest lag of the autocorrelation
CORE_MM = 15.0  # radius around the middle beam in which the profile is taken
LEAST_VOXELS = 2000  # of texture


@dataclass(frozen=True, eq=False)
class Appearance:
    """Measures of one volume.

    Attributes:
        histogram: ``[BINS]`` share of the field of view per intensity, sum 1.
        along_mm: width of the speckle along the beam (FWHM of the autocorrelation).
        across_mm: the same across the beam, mean of both directions.
        roughness: fine-scale standard deviation over local mean, median over the volume.
        profile: ``[D]`` mean intensity at depth 0, 1, 2, ... steps below the near surface;
            NaN where the field of view has ended.
        section: ``[K, I]`` slice through the middle, the beam pointing down.
    """

    histogram: np.ndarray
    along_mm: float
    across_mm: float
    roughness: float
    profile: np.ndarray
    section: np.ndarray


def appearance(
    volume: Volume, spacing_mm: float = 1.0, axes: np.ndarray | None = None
) -> Appearance:
    """Measure one real or simulated iUS, zero outside its field of view.

    Args:
        volume: the iUS.
        spacing_mm: resolution at which it is measured.
        axes: columns lateral, elevation, beam in RAS where they are known; else `beam_axes`.

    Raises:
        InputError: the volume is constant, or too small to show a texture.
    """
    axes = beam_axes(volume) if axes is None else axes
    volume = rescaled(volume)
    view = _filled(volume)
    # A quarter less than what is filled: a volume that lies on these axes keeps its own samples,
    # and rounding cannot move the grid by half a voxel, which would blur them.
    grid = Grid.around(_inside(view), spacing_mm, -spacing_mm / 4, axes)
    image, mask = _on(volume, view, grid)
    texture, core = _texture(image, mask, spacing_mm)
    lateral, elevation, along = (
        half_width(_autocorrelation(texture, core, axis, spacing_mm), spacing_mm)
        for axis in (2, 1, 0)
    )
    counts = torch.histc(image[mask], BINS, 0, 1).double().numpy()
    return Appearance(
        histogram=counts / counts.sum(),
        along_mm=along,
        across_mm=(lateral + elevation) / 2,
        roughness=_roughness(image, mask, core, spacing_mm),
        profile=_profile(image.numpy(), mask.numpy(), spacing_mm),
        section=image[:, image.shape[1] // 2].numpy(),
    )


def beam_axes(volume: Volume) -> np.ndarray:
    """Right-handed axes in RAS (columns), the last along the beam, away from the probe.

    Speckle is finest along the beam: there the texture's mean squared gradient is largest, seen
    at the volume's own resolution. The fan widens with depth, which tells its two ends apart.

    Raises:
        InputError: the volume is constant, or too small to show a texture.
    """
    volume = rescaled(volume)
    view = _filled(volume)
    inside = _inside(view)
    spacing = float(volume.spacing_mm.min())
    grid = Grid.around(inside, spacing, -spacing / 4, nearest_axes(volume.ijk_to_ras))
    texture, core = _texture(*_on(volume, view, grid), spacing)
    slopes = torch.stack(torch.gradient(texture))[:, core].flip(0).double()
    tensor = (slopes @ slopes.T / slopes.shape[1]).numpy()
    axes = grid.ijk_to_ras[:3, :3] / spacing @ np.linalg.eigh(tensor)[1]
    local = (inside - inside.mean(0)) @ axes
    depth, width = local[:, 2], np.square(local[:, :2]).sum(1)
    if np.mean(depth * (width - width.mean())) < 0:
        axes[:, 2] *= -1
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1
    return axes


def half_width(correlation: np.ndarray, spacing_mm: float) -> float:
    """Full width at half maximum (mm) of a symmetric curve given from lag 0 on, 1 at lag 0.

    Raises:
        InputError: the curve stays above one half.
    """
    both = np.concatenate([correlation[:0:-1], correlation])
    lags = (np.arange(len(both)) - len(correlation) + 1) * spacing_mm
    fine = np.linspace(0, lags[-1], 1000)
    below = CubicSpline(lags, both)(fine) < 0.5
    if not below.any():
        raise InputError("the image has no fine texture; expected an ultrasound volume")
    return 2 * float(fine[below.argmax()])


def _filled(volume: Volume) -> Volume:
    """Field of view: what is not empty, and black places within."""
    steps = max(1, round(HOLE_MM / float(volume.spacing_mm.min())))
    solid = np.pad(volume.array.cpu().numpy() > 0, steps)
    solid = np.asarray(ndimage.binary_closing(solid, iterations=steps))
    solid = solid[(slice(steps, -steps),) * 3]
    return volume.replaced(torch.as_tensor(solid, dtype=torch.float32, device=volume.device))


def _inside(view: Volume) -> np.ndarray:
    """RAS positions ``[N, 3]`` of the field of view."""
    return view.points_ras((view.array > 0).nonzero()).cpu().double().numpy()


def _on(volume: Volume, view: Volume, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensity and bool field of view ``[K, J, I]`` on a grid, on the CPU."""
    mask = view.resample(grid).array > 0.99
    return volume.resample(grid).array.cpu(), mask.cpu()


def _texture(
    image: torch.Tensor, mask: torch.Tensor, spacing_mm: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image less its local mean, over its local deviation; and where that can be trusted."""
    weight = mask.float()
    sigma = FINE_MM / spacing_mm
    share = gaussian(weight, sigma).clamp_min(1e-3)
    fine = (image - gaussian(image * weight, sigma) / share) * weight
    deviation = (gaussian(fine.square(), sigma) / share).sqrt()
    rim = max(1, round(RIM_MM / spacing_mm))
    core = torch.as_tensor(ndimage.binary_erosion(mask.numpy(), iterations=rim))
    # Saturated or empty patches have no texture; noise from rounding would take its place.
    core &= deviation > 1e-3
    if int(core.sum()) < LEAST_VOXELS:
        raise InputError("the field of view is too small or too flat to measure its texture")
    return fine / deviation.clamp_min(1e-6) * weight, core


def _autocorrelation(
    texture: torch.Tensor, core: torch.Tensor, axis: int, spacing_mm: float
) -> np.ndarray:
    """Correlation of the texture with itself moved by 0, 1, 2, ... samples along an axis."""
    size = texture.shape[axis]
    curve = []
    for lag in range(min(int(LAGS_MM / spacing_mm) + 1, size - 1)):
        a, b = texture.narrow(axis, 0, size - lag), texture.narrow(axis, lag, size - lag)
        both = core.narrow(axis, 0, size - lag) & core.narrow(axis, lag, size - lag)
        a, b = a[both].double(), b[both].double()
        curve.append(float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()))
    return np.array(curve)


def _roughness(
    image: torch.Tensor, mask: torch.Tensor, core: torch.Tensor, spacing_mm: float
) -> float:
    weight, sigma = mask.float(), FINE_MM / spacing_mm
    share = gaussian(weight, sigma).clamp_min(1e-3)
    mean = gaussian(image * weight, sigma) / share
    deviation = (gaussian((image - mean).square() * weight, sigma) / share).sqrt()
    return float((deviation / mean.clamp_min(1e-3))[core].median())


def _profile(image: np.ndarray, mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Mean over columns near the middle beam, each counted from its own first sample."""
    j, i = (np.arange(n) * spacing_mm for n in image.shape[1:])
    _, middle_j, middle_i = (np.nonzero(mask)[d].mean() * spacing_mm for d in range(3))
    near = np.hypot(j[:, None] - middle_j, i[None] - middle_i) < CORE_MM
    columns, seen = image[:, near].T, mask[:, near].T
    columns, seen = columns[seen.any(1)], seen[seen.any(1)]
    start = seen.argmax(1)
    depth = np.arange(image.shape[0])[None] - start[:, None]
    count = np.bincount(depth[seen], minlength=image.shape[0])
    total = np.bincount(depth[seen], columns[seen], minlength=image.shape[0])
    enough = count > len(columns) / 4
    return np.where(enough, total / np.maximum(count, 1), np.nan)
