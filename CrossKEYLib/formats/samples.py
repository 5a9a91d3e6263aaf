"""What samples must be for an image: finite where there is tissue, and not all alike."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from ..errors import InputError
from .options import tell

MIN_VOXELS = 8  # along each axis; fewer hold no 3D structure


def checked(samples: np.ndarray) -> torch.Tensor:
    """Samples ``[K, J, I]`` of any real type as float32.

    NaN around the image, with which many tools pad, becomes the background value: zero, or the
    lowest value where there are values below zero.

    Raises:
        InputError: too few voxels, NaN or infinite within the image, or one value throughout.
    """
    size = samples.shape[::-1]
    if min(size) < MIN_VOXELS:
        raise InputError(
            f"only {' x '.join(map(str, size))} voxels; expected a 3D volume of at least "
            f"{MIN_VOXELS} along each axis (for DICOM give the folder that holds all slices)"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, refused below
        array = np.ascontiguousarray(samples, dtype=np.float32)
    bad = ~np.isfinite(array)
    if bad.any():
        array = _without_padding(array, bad)
    array = _unwrapped(array)
    low, high = float(array.min()), float(array.max())
    if low == high:
        what = "all voxels are zero" if low == 0 else f"all voxels have one value ({low:g})"
        raise InputError(f"{what}: it holds no image; export it again")
    return torch.from_numpy(array)


def checked_mask(samples: np.ndarray) -> torch.Tensor:
    """Labels ``[K, J, I]`` as float32: 1 where above zero, 0 elsewhere and where NaN. A mask may
    fill its grid, and be of few slices.

    Raises:
        InputError: it marks nothing.
    """
    marked = samples > 0
    if not marked.any():
        raise InputError("the mask is empty: no voxel is above zero; draw it and export it again")
    return torch.from_numpy(marked.astype(np.float32))


def _unwrapped(array: np.ndarray) -> np.ndarray:
    """Undo the overflow of a 16-bit file: values above 32767 stand there as values from -32768 up,
    far below everything else. No scanner makes values as low (CT ends at -3024)."""
    low = array < 0
    if not array.min() < -8192 or array.max() < 24576 or (array[low] > -8192).mean() > 0.01:
        return array
    tell("values beyond 32767 had wrapped round below zero; they were put back")
    return np.where(low, array + np.float32(65536), array)


def _without_padding(array: np.ndarray, bad: np.ndarray) -> np.ndarray:
    count = int(bad.sum())
    inside = bad & ~_padding(np.isnan(array))
    if inside.any() or count == array.size:
        raise InputError(
            f"{count} voxels are NaN or infinite, and not only around the image; "
            "replace them and export it again"
        )
    fill = min(0.0, float(array[~bad].min()))
    tell(f"{count} voxels around the image are NaN; they are taken as background")
    return np.where(bad, np.float32(fill), array)


def _padding(nan: np.ndarray) -> np.ndarray:
    """NaN that surrounds the image: reached from the faces of the box, and at least three voxels
    thick (what lies beyond the box counts), up to the crumbs along its border."""
    wide = np.pad(nan, 3, constant_values=True)
    thick = ndimage.binary_opening(wide, np.ones((3, 3, 3)))
    labels = np.empty(wide.shape, np.int32)
    ndimage.label(thick, output=labels)
    outside = labels == labels[0, 0, 0]
    grown = ndimage.binary_dilation(outside, iterations=2, mask=wide)
    return grown[3:-3, 3:-3, 3:-3]
