"""The field of view of an ultrasound on every background it is exported on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.field_of_view import inside, ius_in_view, mri_in_view
from CrossKEYLib.geometry.volume import Volume

SIZE = (48, 56, 64)
MATRIX = np.diag([0.8, 0.8, 0.8, 1.0])


def fan() -> np.ndarray:
    """Speckle between two arcs, narrow above and wide below."""
    k, j, i = np.indices(SIZE)
    depth = np.hypot(j + 12, (i - SIZE[2] / 2))
    angle = np.abs(np.arctan2(i - SIZE[2] / 2, j + 12))
    field = (depth > 22) & (depth < 62) & (angle < 0.45) & (np.abs(k - SIZE[0] / 2) < 18)
    rng = np.random.default_rng(0)
    speckle = ndimage.gaussian_filter(rng.rayleigh(1, SIZE), 0.8)
    bright = 1 + 0.5 * np.sin(j / 6) * np.cos(i / 7)
    return np.where(field, np.clip(60 * speckle * bright, 1, 255), 0).round()


FAN = fan()
FIELD = FAN > 0


def ultrasound(array: np.ndarray) -> Volume:
    return Volume(torch.from_numpy(array.astype(np.float32)), MATRIX)


def overlap(volume: Volume) -> float:
    """Dice with the true field of view."""
    found = volume.array.numpy() > 0
    return 2 * (found & FIELD).sum() / (found.sum() + FIELD.sum())


def test_on_black_nothing_changes():
    given = ultrasound(FAN)
    assert ius_in_view(given) is given


@pytest.mark.parametrize("level", [40.0, 128.0, 255.0])
def test_constant_background(level):
    found = ius_in_view(ultrasound(np.where(FIELD, FAN, level)))
    assert overlap(found) > 0.99
    kept = (found.array.numpy() > 0) & FIELD
    np.testing.assert_array_equal(found.array.numpy()[kept], FAN[kept])


@pytest.mark.parametrize(("level", "deviation"), [(12, 4), (100, 6), (230, 6)])
def test_noisy_background(level, deviation):
    noise = np.random.default_rng(1).normal(level, deviation, SIZE)
    found = ius_in_view(ultrasound(np.where(FIELD, FAN, noise)))
    assert overlap(found) > 0.9
    twice = ius_in_view(found)
    assert overlap(twice) == pytest.approx(overlap(found), abs=0.01)


def test_text_scale_bar_and_border():
    marked = FAN.copy()
    marked[:, 2:8, 3:6] = marked[:, 2:8, 8:10] = marked[:, 4:6, 3:14] = 255  # letters
    marked[:, 5:50, -6:-4] = 200  # a scale bar
    assert overlap(ius_in_view(ultrasound(marked))) > 0.98
    framed = np.full(SIZE, 255.0)
    framed[2:-2, 2:-2, 2:-2] = marked[2:-2, 2:-2, 2:-2]
    assert overlap(ius_in_view(ultrasound(framed))) > 0.98


@pytest.mark.parametrize("background", [-60.0, 0.0])
def test_decibel_below_zero(background):
    decibel = np.where(FIELD, 20 * np.log10(np.maximum(FAN, 1) / 255), background)
    found = ius_in_view(ultrasound(decibel))
    assert overlap(found) > 0.99
    assert float(found.array.min()) == 0
    kept = (found.array.numpy() > 0) & FIELD
    order = np.corrcoef(found.array.numpy()[kept], decibel[kept])[0, 1]
    assert order > 0.999


def test_ultrasound_that_fills_its_box_is_left_alone():
    full = ultrasound(FAN[16:32, 22:44, 26:38])
    assert bool((full.array > 0).all())
    assert ius_in_view(full) is full or torch.equal(ius_in_view(full).array, full.array)


def test_a_mask_decides():
    j = np.indices(SIZE)[1]
    half = Volume(torch.from_numpy((j < 30).astype(np.float32)), MATRIX)
    found = ius_in_view(ultrasound(FAN - 5), half)
    np.testing.assert_array_equal(found.array.numpy() > 0, j < 30)
    points = torch.tensor([[1.0, 1.0, 1.0], [1.0, 40.0, 1.0]])
    assert inside(half, points).tolist() == [True, False]
    with pytest.raises(InputError, match="does not lie on it"):
        ius_in_view(ultrasound(FAN), half.moved(np.diag([1.0, 1, 1, 1]) + 500 * np.eye(4, k=3)))


def test_mri_around_zero():
    head = np.where(FIELD, FAN - FAN[FIELD].mean(), 0)
    found = mri_in_view(ultrasound(head)).array.numpy()
    assert found.min() == 0
    assert overlap(ultrasound(found)) > 0.98
    plain = ultrasound(FAN)
    assert mri_in_view(plain) is plain
    air = ultrasound(np.where(FIELD, 40, -1000))
    assert mri_in_view(air) is air  # a CT
