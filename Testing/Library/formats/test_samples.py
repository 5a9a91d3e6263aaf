"""Samples that are no image, and NaN around one."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms.volumes import noise_volume

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.formats.samples import checked

SIZE = (20, 24, 28)


def image(padding: np.ndarray, low: float = 1.0) -> np.ndarray:
    values = low + noise_volume(shape=SIZE).array.numpy().astype(float)
    return np.where(padding, np.nan, values)


def ball(radius: float) -> np.ndarray:
    axes = [np.arange(n) - (n - 1) / 2 for n in SIZE]
    square = sum(x**2 for x in np.meshgrid(*axes, indexing="ij"))
    return square <= radius**2


@pytest.mark.parametrize(("low", "fill"), [(1.0, 0.0), (-1000.0, -1000.0)])
def test_nan_around_the_image_is_background(low, fill):
    padding = ~ball(9)
    with pytest.warns(InputWarning, match=f"{padding.sum()} voxels around the image are NaN"):
        array = checked(image(padding, low)).numpy()
    np.testing.assert_array_equal(array[~padding], image(padding, low)[~padding].astype("f4"))
    np.testing.assert_allclose(array[padding], fill, atol=1)


def test_tilted_slab_of_a_resampled_image():
    k, j, i = np.indices(SIZE)
    with pytest.warns(InputWarning, match="voxels around the image are NaN"):
        checked(image((i + 0.4 * j + 0.2 * k < 9) | (i - 0.3 * j > 20)))


@pytest.mark.parametrize("hole", ["point", "ball", "plane", "row"])
def test_nan_within_the_image_is_refused(hole):
    padding = ~ball(9)
    padding |= {
        "point": ball(0.9),
        "ball": ball(4),
        "plane": np.indices(SIZE)[0] == 10,
        "row": (np.indices(SIZE)[0] == 10) & (np.indices(SIZE)[1] == 12),
    }[hole]
    with pytest.raises(InputError, match=rf"{padding.sum()} voxels are NaN .* not only around"):
        checked(image(padding))


def test_infinite_values_are_refused_everywhere():
    array = image(np.zeros(SIZE, bool))
    array[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="1 voxels are NaN or infinite"):
        checked(array)
    with pytest.raises(InputError, match="13440 voxels are NaN"):
        checked(np.full(SIZE, np.nan))


def test_wrapped_16_bit_values_are_put_back():
    true = np.linspace(0, 40000, int(np.prod(SIZE))).reshape(SIZE).round()
    wrapped = true.astype(np.int64).astype(np.uint16).view(np.int16)
    assert wrapped.min() < 0
    with pytest.warns(InputWarning, match="wrapped round below zero; they were put back"):
        np.testing.assert_array_equal(checked(wrapped), true.astype("f4"))
    ct = np.linspace(-3024, 3071, int(np.prod(SIZE))).reshape(SIZE).astype(np.int16)
    np.testing.assert_array_equal(checked(ct), ct)
