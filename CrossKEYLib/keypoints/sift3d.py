"""SIFT3D keypoints (Rister, Horowitz and Rubin, IEEE Trans. Image Processing 26(10), 2017).

Extrema of a difference-of-Gaussians (DoG) pyramid, located below the voxel, kept where the local
structure tensor fixes an orientation. One batch per pyramid level; same code on every device.

Inside this file positions are (k, j, i) in voxels of the working grid: isotropic, along the
volume's own axes, so that nothing is interpolated where the volume is isotropic already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from ..config import SiftConfig
from ..errors import InputError
from ..geometry.filters import gaussian
from ..geometry.intensity import AIR
from ..geometry.transform import nearest_axes
from ..geometry.volume import Grid, Volume
from .keypoints import Keypoints

MARGIN_VOXELS = 2  # of the octave, at the border of the field of view, without keypoints
FILL_SIGMA_MM = 4.0  # blur of the continuation of intensities beyond the field of view
HOLE_CELL = 4  # voxels of the grid on which the outside is followed; small enough for a shadow
SMALLEST_OCTAVE = 12  # voxels; a shorter edge has no interior between the margins
EDGE_RATIO = 0.02  # smallest over largest structure-tensor eigenvalue; below: a plane or a line
WINDOW_SIGMA = 1.5  # structure-tensor window over keypoint scale (Rister 2017, section III-C)
WINDOW_RADIUS = 3.5  # where that window is cut, in keypoint scales
CHUNK = 8192  # keypoints oriented at once; bounds memory


def detect(
    volume: Volume,
    config: SiftConfig | None = None,
    mask: Volume | None = None,
    spacing_mm: float | None = 1.0,
) -> Keypoints:
    """Find SIFT3D keypoints, strongest first.

    Intensities may be on any linear scale. The peak threshold is relative to the strongest
    response, so clip outliers first (`rescaled`).

    Args:
        volume: any orientation and spacing. Its border, and the edge of its non-empty part where
            the outside is empty (iUS fan, stripped head), yield no keypoints.
        config: thresholds and scales; the paper's by default.
        mask: keypoints only where this exceeds 0.5, its border excluded as above; any grid.
        spacing_mm: isotropic working resolution; None takes the mean spacing of the volume.

    Returns:
        Keypoints in RAS mm. A scale is the standard deviation (mm) of the Gaussian blob that
        would respond alike; a score is the share of the strongest response, 0 to 1; orientations
        are rotations, first column along the strongest variation. May be empty.

    Raises:
        InputError: the volume is constant or not finite, or the spacing not positive.
    """
    config = config or SiftConfig()
    image, inside = _working_image(volume, mask, spacing_mm)
    axes = torch.as_tensor(image.ijk_to_ras[:3, :3] / image.spacing_mm, dtype=torch.float32)
    per_octave = config.levels_per_octave
    first = config.sigma0_voxels * 2 ** (-1 / per_octave)
    level = gaussian(image.array, math.sqrt(max(first**2 - config.sigma_n_voxels**2, 0)))
    peak, found = 0.0, []
    for octave in range(config.octaves):
        if min(level.shape) < SMALLEST_OCTAVE:
            break
        levels = _scale_space(level, config)
        inner = _eroded(inside)
        dogs = [levels[1] - levels[0], levels[2] - levels[1]]
        for index in range(1, per_octave + 1):
            dogs.append(levels[index + 2] - levels[index + 1])
            peak = max(peak, float((dogs[1].abs() * inner).amax()))
            kji, shift, response = _extrema(dogs, inner, config.peak_threshold * peak)
            del dogs[0]
            sigma = config.sigma0_voxels * 2 ** ((index - 1 + shift) / per_octave)
            kept, rotation = _orientations(levels[index], kji, sigma, axes, config)
            step = 2**octave
            found.append((kji[kept] * step, sigma[kept] * step, response[kept], rotation[kept]))
        level = levels[per_octave][::2, ::2, ::2].contiguous()
        inside = inside[::2, ::2, ::2]
        del levels, dogs
    if not found:
        size = " x ".join(str(n) for n in image.shape[::-1])
        spacing = float(image.spacing_mm[0])
        raise InputError(
            f"the volume is too small for keypoints: expected at least {SMALLEST_OCTAVE} voxels "
            f"of {spacing:g} mm per axis, got {size}; give the whole volume or a finer spacing"
        )
    return _keypoints(found, peak, image, config)


def _keypoints(
    found: list[tuple[torch.Tensor, ...]], peak: float, image: Volume, config: SiftConfig
) -> Keypoints:
    """Join the levels, strongest first, in millimetres."""
    kji, sigma, response, rotation = (torch.cat(parts) for parts in zip(*found, strict=True))
    scores = response / max(peak, 1e-30)
    order = scores.argsort(descending=True, stable=True)
    # Early levels were cut at the peak known by then, which may have been lower.
    order = order[scores[order] >= config.peak_threshold][: config.max_keypoints]
    # A blob of variance b^2 (less the input's own blur) has its DoG extremum, between s and k s,
    # where k^2 (b^2 + k^2 s^2)^(-5/2) = (b^2 + s^2)^(-5/2); solved for b.
    k = 2 ** (1 / config.levels_per_octave)
    ratio = (k**2 - k**0.8) / (k**0.8 - 1)
    blob = (sigma[order] ** 2 * ratio + config.sigma_n_voxels**2).sqrt()
    spacing = float(image.spacing_mm[0])
    points = image.points_ras(kji[order])
    return Keypoints(points, blob * spacing, scores[order], rotation[order])


def _working_image(
    volume: Volume, mask: Volume | None, spacing_mm: float | None
) -> tuple[Volume, torch.Tensor]:
    """Isotropic image, continued smoothly outside its field of view, and that field (bool)."""
    low, high = (float(v) for v in torch.aminmax(volume.array))
    if not math.isfinite(high - low):
        raise InputError("the volume holds NaN or infinite values; replace them first")
    if high <= low:
        raise InputError("the volume is constant: it holds no image")
    spacing = float(volume.spacing_mm.prod() ** (1 / 3)) if spacing_mm is None else spacing_mm
    if not (math.isfinite(spacing) and spacing > 0):
        raise InputError(f"expected a positive spacing in mm, got {spacing_mm}")
    grid = _isotropic_grid(volume, spacing)
    values = volume.replaced((volume.array - low) / (high - low))
    # `rescaled` lifts the darkest filled voxels to exactly AIR.
    filled = values.replaced(_without_holes(values.array > AIR / 2).float())
    if grid is not None:
        values, filled = values.resample(grid), filled.resample(grid)
    array, weight = values.array, filled.array
    field = weight > 0.5
    if float(weight.amin()) < 1:
        # Continued by a normalised blur, or the edge of the fan would be the strongest edge.
        sigma = FILL_SIGMA_MM / spacing
        mean = float(array.sum() / weight.sum().clamp_min(1e-6))
        near = gaussian(array, sigma).add_(1e-3 * mean).div_(gaussian(weight, sigma).add_(1e-3))
        array = array + near.mul_(1 - weight)
    if mask is not None:
        allowed = mask.to(volume.device).resample(Grid.of(values), "nearest").array > 0.5
        field = field & allowed
    return values.replaced(array), field


def _isotropic_grid(volume: Volume, spacing: float) -> Grid | None:
    """Grid of this spacing (mm) along the volume's axes; None if the volume lies on one."""
    columns = volume.ijk_to_ras[:3, :3]
    axes = nearest_axes(volume.ijk_to_ras)
    if np.allclose(columns, axes * spacing, rtol=0, atol=1e-3 * spacing):
        return None
    return Grid.along(volume, spacing)


def _without_holes(filled: torch.Tensor) -> torch.Tensor:
    """Add the empty regions that do not reach the border: dark fluid is inside the view."""
    if bool(filled.all()):
        return filled
    pad = [p for n in reversed(filled.shape) for p in (HOLE_CELL, HOLE_CELL + -n % HOLE_CELL)]
    coarse = F.max_pool3d(F.pad(filled.float(), pad)[None, None], HOLE_CELL)
    empty = 1 - coarse
    outside = torch.zeros_like(empty)
    outside[..., 0, 0, 0] = 1
    reached = -1.0
    while (total := float(outside.sum())) > reached:
        reached = total
        for _ in range(8):  # several steps per look at the sum, which waits for the device
            outside = F.max_pool3d(outside, 3, 1, 1) * empty
    # Cells beside the outside hold the border itself, whose empty voxels stay outside.
    hole = F.max_pool3d(outside, 3, 1, 1)[0, 0] < 0.5
    for axis in range(3):
        hole = hole.repeat_interleave(HOLE_CELL, axis)
    start, (k, j, i) = HOLE_CELL, filled.shape
    return filled | hole[start : start + k, start : start + j, start : start + i]


def _eroded(inside: torch.Tensor) -> torch.Tensor:
    """Take the margin off, at the edge of the grid as well."""
    out = F.pad(inside, [MARGIN_VOXELS] * 6)
    for _ in range(MARGIN_VOXELS):
        out = _pool(out, torch.logical_and)
    return out


def _pool(
    array: torch.Tensor, reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Reduce every 3x3x3 neighbourhood; each axis shortens by two.

    Three passes of shifted views: on CPUs several times as fast as `max_pool3d`.
    """
    for axis, size in enumerate(array.shape):
        a, b, c = (array.narrow(axis, start, size - 2) for start in range(3))
        array = reduce(reduce(a, b), c)
    return array


def _scale_space(first: torch.Tensor, config: SiftConfig) -> list[torch.Tensor]:
    """The octave's Gaussian levels, blur sigma0 * 2^(s / levels) for s = -1 ... levels + 1."""
    factor = 2 ** (1 / config.levels_per_octave)
    sigma, levels = config.sigma0_voxels / factor, [first]
    for _ in range(config.levels_per_octave + 2):
        levels.append(gaussian(levels[-1], sigma * math.sqrt(factor**2 - 1)))
        sigma *= factor
    return levels


def _extrema(
    dogs: list[torch.Tensor], inside: torch.Tensor, floor: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Extrema among the 26 neighbours in space and the two in scale.

    Returns:
        Refined positions ``[N, 3]`` (k, j, i), scale steps ``[N]`` from the middle level, and
        magnitudes ``[N]``.
    """
    below, here, above = dogs
    inner = (slice(1, -1),) * 3
    middle = here[inner]
    high = _pool(here, torch.maximum)
    torch.maximum(high, torch.maximum(below, above)[inner], out=high)
    extreme = (middle == high) & (middle > floor)
    low = _pool(here, torch.minimum)
    torch.minimum(low, torch.minimum(below, above)[inner], out=low)
    extreme |= (middle == low) & (middle < -floor)
    kji = (extreme & inside[inner]).nonzero() + 1
    offset, response = _refined(dogs, kji)
    position = kji + offset[:, 1:]
    # A peak midway between voxels has two equal highest ones, which refine to the same place.
    key = torch.cat([position * 2, offset[:, :1]], 1).round()
    groups, group = torch.unique(key, dim=0, return_inverse=True)
    order = torch.arange(len(kji), device=kji.device)
    first = order.new_full((len(groups),), len(kji)).scatter_reduce(0, group, order, "amin")
    first = first.sort().values
    return position[first], offset[first, 0], response[first].abs()


def _refined(dogs: list[torch.Tensor], kji: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quadratic fit in scale and space: offsets ``[N, 4]`` (s, k, j, i), values ``[N]``."""
    _, rows, columns = dogs[0].shape
    steps = torch.arange(-1, 2, device=kji.device)
    around = (steps[:, None, None] * rows + steps[:, None]) * columns + steps
    flat = (kji[:, 0] * rows + kji[:, 1]) * columns + kji[:, 2]
    index = flat[:, None] + around.flatten()
    patch = torch.stack([d.flatten()[index].reshape(-1, 3, 3, 3) for d in dogs], 1)

    def at(*moves: tuple[int, int]) -> torch.Tensor:
        cell = [1, 1, 1, 1]
        for axis, move in moves:
            cell[axis] += move
        return patch[:, cell[0], cell[1], cell[2], cell[3]]

    value = at()
    gradient = torch.stack([(at((a, 1)) - at((a, -1))) / 2 for a in range(4)], 1)
    curvature = torch.stack([at((a, 1)) + at((a, -1)) - 2 * value for a in range(4)], 1)
    hessian = torch.diag_embed(curvature)
    for a, b in combinations(range(4), 2):
        same = at((a, 1), (b, 1)) + at((a, -1), (b, -1))
        mixed = (same - at((a, 1), (b, -1)) - at((a, -1), (b, 1))) / 4
        hessian[:, a, b] = hessian[:, b, a] = mixed
    joint = -torch.linalg.solve_ex(hessian, gradient)[0]
    # One axis at a time never leaves the voxel; it stands in where the joint fit does.
    single = torch.nan_to_num(-gradient / curvature, 0.0, 0.0, 0.0).clamp(-0.5, 0.5)
    near = (joint.abs() <= 0.75).all(1, keepdim=True)  # false for NaN as well
    offset = torch.where(near, joint, single)
    return offset, value + (gradient * offset).sum(1) / 2


def _orientations(
    level: torch.Tensor,
    kji: torch.Tensor,
    sigma: torch.Tensor,
    axes: torch.Tensor,
    config: SiftConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Corner test and rotation from the structure tensor (Rister 2017, section III-C).

    Returns:
        Which keypoints pass (bool ``[N]``) and their rotations ``[N, 3, 3]`` (columns in RAS).
    """
    chunks = zip(kji.split(CHUNK), sigma.split(CHUNK), strict=True)
    moments = [_gradient_moments(level, k, s) for k, s in chunks]
    # The decomposition of 3x3 matrices is exact and cheap in double precision on the CPU, and
    # not every device has it.
    mean, tensor = (torch.cat(m).cpu().double() for m in zip(*moments, strict=True))
    axes = axes.double()
    mean, tensor = mean @ axes.T, axes @ tensor @ axes.T
    values, vectors = torch.linalg.eigh(tensor)
    values = values.clamp_min(0) + 1e-300
    along = (vectors * mean[:, :, None]).sum(1)
    cosines = along.abs() / mean.norm(dim=1, keepdim=True).clamp_min(1e-300)
    # Only the two stronger axes take their sign from the gradient; the third is their product.
    kept = cosines[:, 1:].amin(1) >= config.corner_threshold
    kept &= (values[:, :2] / values[:, 1:]).amax(1) <= config.max_eigenvalue_ratio
    kept &= values[:, 0] >= EDGE_RATIO * values[:, 2]
    vectors = vectors * torch.where(along < 0, -1.0, 1.0)[:, None, :]
    first, second = vectors[:, :, 2], vectors[:, :, 1]
    rotation = torch.stack([first, second, torch.linalg.cross(first, second)], 2)
    return kept.to(level.device), rotation.to(level.device, torch.float32)


def _gradient_moments(
    level: torch.Tensor, kji: torch.Tensor, sigma: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Window-weighted mean ``[N, 3]`` and second moment ``[N, 3, 3]`` of the gradient (i, j, k).

    The window is sampled once per scale step: the level holds no finer detail than that.
    """
    reach = torch.arange(-int(WINDOW_RADIUS), int(WINDOW_RADIUS) + 1, device=level.device)
    window = torch.cartesian_prod(reach, reach, reach).to(level.dtype)
    window = window[window.norm(dim=1) <= WINDOW_RADIUS]
    weight = torch.exp(-0.5 * (window / WINDOW_SIGMA).square().sum(1))
    weight = weight / weight.sum()
    # grid_sample counts from -1 to 1 between the outermost voxel centres.
    unit = 2 / (torch.tensor(level.shape[::-1], device=level.device, dtype=level.dtype) - 1)
    centres = (kji.flip(1)[:, None] + sigma[:, None, None] * window) * unit - 1

    def sample(step: torch.Tensor) -> torch.Tensor:
        points = (centres + step)[None, None]
        values = F.grid_sample(level[None, None], points, padding_mode="border", align_corners=True)
        return values[0, 0, 0]

    steps = torch.diag(unit)
    gradient = torch.stack([(sample(step) - sample(-step)) / 2 for step in steps], 2)
    weighted = gradient * weight[:, None]
    return weighted.sum(1), weighted.transpose(1, 2) @ gradient
