"""What of an image is its field of view: found in the image itself, not from zero alone.

Ultrasound comes on black, grey, white or noisy background, with text, scale bars and borders, and
in decibel below zero. Everything later takes zero as outside, so both images are brought to that
once, before anything else looks at them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from ..errors import InputError
from .ct import is_hounsfield
from .intensity import AIR
from .volume import Grid, Volume

FACE_SHARE = 0.2  # of the outermost samples that have the value of a constant background
MARGIN_SHARE = 0.98  # of a layer of the box that has one value, where it is a margin or a border
WINDOW_VOXELS = 7  # an edge of the cube in which a sample's surroundings are looked at
NOISE_SPREAD = 4.0  # deviations of the local mean that belong to a noisy background
NOISE_CONTRAST = 0.2  # of the range of local means: a background varies less than this
SMALL_PART = 0.15  # of the largest connected part; smaller ones are text, scale bars and crumbs
UNCHANGED = 2e-3  # share of the field of view below which what would be taken away is left alone


def ius_in_view(ius: Volume, mask: Volume | None = None) -> Volume:
    """The ultrasound with zero outside its field of view, and above zero within.

    Args:
        ius: as read, on any background.
        mask: its field of view where above zero, on any grid; found in the image when missing.

    Returns:
        The same volume where nothing has to change.

    Raises:
        InputError: the mask leaves nothing, or all samples are alike.
    """
    if mask is not None:
        return _lifted(ius, masked(ius, mask, "ultrasound"))
    array = ius.array.cpu().numpy()
    background, value = _background(array)
    whole = ~background
    if not whole.any():
        raise InputError("the ultrasound shows nothing but background; export it again")
    kept = whole & _main_parts(whole)
    if (whole & ~kept).sum() <= UNCHANGED * whole.sum():
        kept = whole
    if value == 0 and array.min() == 0 and np.array_equal(kept, array > 0):
        return ius
    return _lifted(ius, torch.from_numpy(kept).to(ius.device))


def mri_in_view(mri: Volume) -> Volume:
    """The MRI with its background at zero, where it has values below zero and is no CT."""
    if float(mri.array.amin()) >= 0 or is_hounsfield(mri):
        return mri
    array = mri.array.cpu().numpy()
    background, value = _background(array)
    if value is None:  # values around zero, as resampling leaves them
        return mri.replaced(mri.array.clamp_min(0))
    return _lifted(mri, torch.from_numpy(~background).to(mri.device))


def binary(mask: Volume) -> Volume:
    """1 where a mask of any labels is above zero, else 0."""
    return mask.replaced((mask.array > 0).float())


def inside(mask: Volume, points: torch.Tensor) -> torch.Tensor:
    """Whether RAS points ``[N, 3]`` lie where a mask is above zero; bool ``[N]``."""
    return binary(mask).sample(points, "nearest") > 0.5


def masked(image: Volume, mask: Volume, what: str) -> torch.Tensor:
    """Samples of the image that lie where a mask is above zero; bool ``[K, J, I]``.

    Raises:
        InputError: none does; ``what`` names the image.
    """
    points = Grid.of(image).points(image.device)
    kept = inside(mask.to(image.device), points.reshape(-1, 3)).reshape(image.shape)
    if not bool(kept.any()):
        raise InputError(f"the mask of the {what} does not lie on it; give one in the same world")
    return kept


def _lifted(image: Volume, kept: torch.Tensor) -> Volume:
    """Zero outside ``kept``, and above zero inside."""
    array = image.array
    low, high = float(array[kept].amin()), float(array[kept].amax())
    least = max(AIR * (high - low), 1e-30)
    raised = array if low > 0 else array - low
    return image.replaced(torch.where(kept, raised.clamp_min(least), 0))


def _background(array: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Bool ``[K, J, I]``, and its value if it is constant: none where the image fills its box."""
    core, edge, background = _without_margins(array)
    values, counts = np.unique(_faces(array[core]), return_counts=True)
    value = float(values[counts.argmax()])
    if counts.max() < FACE_SHARE * counts.sum():
        if edge is None:
            return _noisy_background(array), None
        value = edge
    same = array[core] == value
    background[core] = same if value == array[core].min() else _outside(same)
    return background, value


def _without_margins(array: np.ndarray) -> tuple[tuple[slice, ...], float | None, np.ndarray]:
    """The box within margins and borders of one value each, the innermost of those values, and
    where the margins have it, bool ``[K, J, I]``."""
    bounds, value = [[0, n] for n in array.shape], None
    margin = np.zeros(array.shape, bool)
    for axis, ends in enumerate(bounds):
        for end in (0, 1):
            while ends[1] - ends[0] > 2 * WINDOW_VOXELS:
                core = array[tuple(slice(*kept) for kept in bounds)]
                values, counts = np.unique(core.take(-end, axis), return_counts=True)
                if counts.max() < MARGIN_SHARE * counts.sum():
                    break
                value = float(values[counts.argmax()])
                layer = [slice(*kept) for kept in bounds]
                layer[axis] = slice(ends[1] - 1, ends[1]) if end else slice(ends[0], ends[0] + 1)
                margin[tuple(layer)] = array[tuple(layer)] == value
                ends[end] += 1 - 2 * end
    return tuple(slice(*kept) for kept in bounds), value, margin


def _faces(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])


def _noisy_background(array: np.ndarray) -> np.ndarray:
    """Noise of one brightness and strength that reaches the faces of the box."""
    values = array.astype(np.float32)
    mean = np.asarray(ndimage.uniform_filter(values, WINDOW_VOXELS, mode="nearest"))
    square = ndimage.uniform_filter(values * values, WINDOW_VOXELS, mode="nearest")
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    around = _faces(mean)
    level = float(np.median(around))
    deviation = 1.4826 * float(np.median(np.abs(around - level)))
    low, high = np.quantile(mean[::2, ::2, ::2], [0.01, 0.99])
    if NOISE_SPREAD * deviation > NOISE_CONTRAST * (high - low):
        return np.zeros(array.shape, bool)  # ultrasound up to the faces
    alike = np.abs(mean - level) <= NOISE_SPREAD * deviation
    alike &= spread <= 2 * float(np.median(spread[alike]))
    background = _outside(alike)
    if not background.any():
        return background
    # The window has blurred the border; a smaller one says what of its width is noise
    near = np.asarray(ndimage.uniform_filter(values, 3, mode="nearest"))
    reach = NOISE_SPREAD * float(near[background].std())
    rim = np.asarray(ndimage.binary_dilation(background, iterations=WINDOW_VOXELS // 2), bool)
    return background | (rim & (np.abs(near - level) <= reach))


def _outside(alike: np.ndarray) -> np.ndarray:
    """What of a mask reaches the faces of the box, without the thin branches into the image."""
    wide = np.pad(alike, 3, constant_values=True)  # its shell survives the opening
    thick = ndimage.binary_opening(wide, np.ones((3, 3, 3)))
    labels = np.empty(wide.shape, np.int32)
    ndimage.label(thick, output=labels)
    reached = ndimage.binary_dilation(labels == labels[0, 0, 0], iterations=2, mask=wide)
    return reached[3:-3, 3:-3, 3:-3]


def _main_parts(whole: np.ndarray) -> np.ndarray:
    """The large parts of a field of view, and what lies close around them: lines thinner than
    half the window (scale bars, borders) vanish, and so do small parts (text)."""
    density = ndimage.uniform_filter(whole.astype(np.float32), WINDOW_VOXELS, mode="nearest")
    solid = density > 0.5
    labels = np.empty(whole.shape, np.int32)
    ndimage.label(solid, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if not sizes.any():
        return np.ones(whole.shape, bool)
    large = (sizes >= SMALL_PART * sizes.max())[labels]
    return ndimage.binary_dilation(large, iterations=WINDOW_VOXELS // 2)
