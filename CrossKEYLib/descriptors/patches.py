"""Cubic patches around points, sampled in real millimetres at any rotation.

A patch is indexed ``[K, J, I]``; unrotated, its indices grow towards S, A and R. A rotation ``R``
(columns: the patch's i, j and k axis in RAS) reads the patch at ``point + R @ offset`` in the one
trilinear sampling there is, so nothing is cropped, padded or interpolated twice. The middle of
the patch, between its two central samples when ``size`` is even, lies on the point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..geometry import transform
from ..geometry.volume import Volume

DIRECTIONS = {
    "R": (1.0, 0.0, 0.0),
    "L": (-1.0, 0.0, 0.0),
    "A": (0.0, 1.0, 0.0),
    "P": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}


def sample_patches(
    volume: Volume,
    points: torch.Tensor,
    size: int = 32,
    spacing_mm: float = 1.0,
    rotations: torch.Tensor | None = None,
    chunk: int = 16,
) -> torch.Tensor:
    """Read one cube of ``size`` samples a side around every point; zero outside the volume.

    Args:
        volume: where to read. Single samples are read, so a volume finer than ``spacing_mm``
            should be passed through ``Volume.smoothed(spacing_mm)`` first, once.
        points: ``[N, 3]`` RAS mm, on the volume's device.
        size: samples a side.
        spacing_mm: distance between samples.
        rotations: ``[N, 3, 3]`` or ``[3, 3]``, columns are the patch axes (i, j, k) in RAS.
        chunk: patches read at once; their sample positions take 0.4 MB each.

    Returns:
        ``[N, 1, size, size, size]`` float32 in the volume's intensities.
    """
    reach = spacing_mm * (size - 1) / 2
    poses = _poses_in_grid(volume, points, rotations, reach)
    patches = volume.array.new_empty((len(points), 1, size, size, size))
    for start in range(0, len(points), chunk):
        pose = poses[start : start + chunk]
        grid = F.affine_grid(pose, [len(pose), 1, size, size, size], align_corners=True)
        # One batch entry per patch, so that all processor cores take part.
        source = volume.array.expand(len(pose), 1, *volume.shape)
        patches[start : start + chunk] = F.grid_sample(source, grid, align_corners=True)
    return patches


def normalise(patches: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit standard deviation over each patch ``[N, ...]``; constant becomes 0."""
    flat = patches.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    # Interpolating a constant leaves rounding noise, which must not be blown up to unit size.
    constant = high - low <= 1e-5 * torch.maximum(high.abs(), low.abs())
    scaled = F.layer_norm(flat - low, flat.shape[1:], eps=1e-20)
    return scaled.masked_fill_(constant, 0).view_as(patches)


def random_rotations(
    count: int, max_angle_deg: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Rotations about the R, then A, then S axis, each angle uniform in ``+-max_angle_deg``.

    Returns:
        ``[count, 3, 3]`` float32 on the generator's device (the CPU without one).
    """
    device = generator.device if generator else torch.device("cpu")
    angles = torch.rand(count, 3, generator=generator, device=device)
    angles = torch.deg2rad((2 * angles - 1) * max_angle_deg)
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def axes_rotation(axes: str) -> torch.Tensor:
    """Rotation ``[3, 3]`` whose patches have indices growing towards the named directions.

    Args:
        axes: one letter of RLAPSI for each of the indices k, j, i; "SAR" gives the identity.

    Raises:
        InputError: the letters do not name a right-handed frame.
    """
    columns = [DIRECTIONS[letter] for letter in reversed(axes) if letter in DIRECTIONS]
    matrix = torch.tensor(columns).T if len(columns) == len(axes) == 3 else torch.zeros(3, 3)
    if torch.linalg.det(matrix) < 0.5:
        raise InputError(
            f"patch axes {axes!r} are not a right-handed frame; name the directions in which "
            "k, j and i grow, for example 'SAR'"
        )
    return matrix


def _poses_in_grid(
    volume: Volume, points: torch.Tensor, rotations: torch.Tensor | None, reach_mm: float
) -> torch.Tensor:
    """Maps patch coordinates, -1 to 1 along (i, j, k), to those of ``grid_sample``, ``[N, 3, 4]``.

    ``reach_mm`` is the distance from a patch's middle to its outermost samples.
    """
    sizes = torch.tensor(volume.shape[::-1], dtype=points.dtype, device=points.device)
    scale = 2 / (sizes - 1).clamp_min(1)  # a single slice has no extent to divide by
    matrix = torch.as_tensor(volume.ras_to_ijk, dtype=points.dtype, device=points.device)
    linear = scale[:, None] * matrix[:3, :3]
    turned = linear if rotations is None else linear @ rotations.to(points)
    centres = transform.apply(volume.ras_to_ijk, points) * scale - 1
    axes = (reach_mm * turned).expand(len(points), 3, 3)
    return torch.cat([axes, centres[..., None]], -1).to(volume.array.dtype)
