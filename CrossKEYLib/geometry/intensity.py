"""Intensities of an image brought to a common range, as the networks expect them."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError
from .volume import Volume

AIR = 1e-6  # share of the intensity range below which a voxel counts as empty
MEDIAN_BRIGHTNESS = 0.15  # median that the encoder sees of an ultrasound


def nonempty(volume: Volume) -> torch.Tensor:
    """Bool ``[K, J, I]``: which samples differ from the volume's minimum.

    Raises:
        InputError: the volume is constant.
    """
    array = volume.array
    floor = array.amin()
    filled = array > floor + AIR * (array.amax() - floor)
    if not bool(filled.any()):
        raise InputError("the volume is constant: it holds no image")
    return filled


def rescaled(volume: Volume, low: float = 0.01, high: float = 0.99) -> Volume:
    """Clip to the given quantiles of the non-empty voxels and scale to [0, 1]; empty stays 0.

    Empty means equal to the volume's minimum: the outside of an iUS fan or a stripped head.

    Raises:
        InputError: the volume is constant.
    """
    array, filled = volume.array, nonempty(volume)
    values = thinned(array[filled])
    a, b = torch.quantile(values, torch.tensor([low, high], device=values.device)).tolist()
    scaled = ((array - a) / max(b - a, 1e-12)).clamp(0, 1)
    return volume.replaced(torch.where(filled, scaled.clamp_min(AIR), 0))


def thinned(values: torch.Tensor, most: int = 1_000_000) -> torch.Tensor:
    """Every n-th of ``[N]`` values, fewer than twice ``most``: exact quantiles need a full sort."""
    return values[:: max(1, len(values) // most)]


def gamma_normalised(ius: Volume) -> Volume:
    """`rescaled`, then the power curve that makes the median of the filled voxels
    `MEDIAN_BRIGHTNESS`.

    Gain and display curve differ between machines and operators; the encoder sees ultrasound in
    one tone, dark enough that bright lines stand out.

    Raises:
        InputError: the volume is constant.
    """
    scaled = rescaled(ius)
    median = float(thinned(scaled.array[scaled.array > 0]).median())
    power = np.log(MEDIAN_BRIGHTNESS) / np.log(np.clip(median, 0.01, 0.9))
    shown = (scaled.array ** float(power)).clamp_min(AIR)
    return scaled.replaced(torch.where(scaled.array > 0, shown, 0))
