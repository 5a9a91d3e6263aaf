"""Filters and interpolation of sampled images ``[..., K, J, I]``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from . import transform
from .transform import Matrix


def sample_channels(
    channels: torch.Tensor, ras_to_ijk: Matrix, points: torch.Tensor, mode: str = "bilinear"
) -> torch.Tensor:
    """Interpolate ``channels [C, K, J, I]`` at RAS points ``[..., 3]``; zero outside.

    Returns:
        ``[C, ...]``. ``mode`` is "bilinear" (trilinear in 3D) or "nearest".
    """
    size = torch.tensor(channels.shape[:0:-1], dtype=points.dtype, device=points.device)
    # grid_sample counts from -1 to 1 between the outermost voxel centres (align_corners=True);
    # a size of one has no extent, so the divisor must not be zero.
    grid = transform.apply(ras_to_ijk, points) * (2 / (size - 1).clamp_min(1)) - 1
    # Written in place of a per-channel loop: one call serves all channels and points.
    values = F.grid_sample(
        channels[None], grid.reshape(1, 1, 1, -1, 3).to(channels.dtype), mode, align_corners=True
    )
    return values.reshape(channels.shape[0], *points.shape[:-1])


def box_mean(x: torch.Tensor, size: int, stride: int = 1) -> torch.Tensor:
    """Mean over cubes of ``size`` voxels (odd), zeros beyond the border: ``[C, K, J, I]``, every
    ``stride`` voxels."""
    return patch_means(F.pad(x, (size // 2,) * 6), size, stride)


def patch_means(x: torch.Tensor, size: int, stride: int = 1) -> torch.Tensor:
    """Mean over each cube of ``size`` voxels that lies wholly in ``[..., K, J, I]``, every
    ``stride`` voxels. Shifted sums along one axis after the other: on a CPU several times as fast
    as pooling."""
    for axis in (-3, -2, -1):
        length = x.shape[axis] - size + 1
        parts = (x.narrow(axis, n, length) for n in range(size))
        if stride > 1:
            kept = (..., slice(None, None, stride), *(slice(None),) * (-1 - axis))
            parts = (part[kept] for part in parts)
        total = next(parts).clone()
        for part in parts:
            total += part
        x = total.div_(size)
    return x


def gaussian(array: torch.Tensor, sigmas: float | list[float]) -> torch.Tensor:
    """Separable Gaussian blur of ``[..., K, J, I]``; sigma in voxels, for (k, j, i).

    The kernel is cut at three sigma; borders repeat the edge value.
    """
    if isinstance(sigmas, (int, float)):
        sigmas = [float(sigmas)] * 3
    out = array
    for axis, sigma in zip((-3, -2, -1), sigmas, strict=True):
        if sigma > 0.05:
            out = _blur_axis(out, axis, sigma)
    return out


def _blur_axis(array: torch.Tensor, axis: int, sigma: float) -> torch.Tensor:
    """Gaussian along one axis, as products with blocks of the banded blur matrix: on CPUs about
    eight times as fast as a one-channel convolution."""
    size, radius, block = array.shape[axis], int(np.ceil(3 * sigma)), 64
    reach = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    rows = np.arange(size)[:, None]
    band = np.zeros((size, size))
    np.add.at(band, (rows, (rows + reach).clip(0, size - 1)), kernel / kernel.sum())
    matrix = torch.as_tensor(band, dtype=array.dtype, device=array.device)
    inner = array.shape[axis + 1 :].numel() if axis < -1 else 1
    lines = array.reshape(-1, size, inner) if inner > 1 else array.reshape(1, -1, size)
    out = torch.empty_like(lines)
    for start in range(0, size, block):
        stop = min(start + block, size)
        low, high = max(start - radius, 0), min(stop + radius, size)
        weight = matrix[start:stop, low:high]
        if inner > 1:
            out[:, start:stop] = weight @ lines[:, low:high]
        else:
            out[..., start:stop] = lines[..., low:high] @ weight.T
    return out.reshape(array.shape)
