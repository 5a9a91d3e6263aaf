"""What cannot be a pair of MRI and iUS is refused; everything else passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.trust.plausibility import SPECKLE_RATIO, check_pair, speckle

DATA = Path(__file__).parents[4] / "shared" / "data"
CASE = DATA / "resect" / "case24"


def image(size: int, spacing: float, speckled: bool, fan: bool, seed: int = 0) -> Volume:
    """Smooth structure; multiplied by speckle and cut to a cone on request."""
    generator = torch.Generator().manual_seed(seed)
    smooth = gaussian(torch.rand(size, size, size, generator=generator), 6.0)
    array = 1 + (smooth - smooth.mean()) / smooth.std() * 0.3
    if speckled:
        noise = torch.randn(2, size, size, size, generator=generator)
        array = array * gaussian(noise, 0.6 / spacing).square().sum(0).sqrt() * 5
    array = array.clamp_min(0.05)
    if fan:
        k, j, i = np.indices(array.shape) - (size - 1) / 2
        array = array * torch.from_numpy(np.hypot(i, j) < 0.25 * (k + size))
    return Volume(array, np.diag([spacing, spacing, spacing, 1.0]))


WHOLE = image(70, 2.5, speckled=False, fan=False)  # 5.4 litres
CROP = image(56, 1.0, speckled=False, fan=False)
IUS = image(56, 1.0, speckled=True, fan=True)


def test_good_pairs_pass():
    check_pair(WHOLE, IUS)
    check_pair(CROP, IUS)
    check_pair(CROP, image(56, 1.0, speckled=True, fan=False))  # an iUS cut to its inside
    check_pair(image(56, 1.0, speckled=False, fan=True), IUS)  # an MRI masked to the iUS


def test_swapped_pairs_are_refused():
    with pytest.raises(InputError, match=r"looks like an MRI; exchange --mri and --ius"):
        check_pair(IUS, WHOLE)
    with pytest.raises(InputError, match="they look swapped"):
        check_pair(IUS, CROP)


def test_one_image_twice_and_too_little_ultrasound():
    with pytest.raises(InputError, match="same image"):
        check_pair(IUS, Volume(IUS.array.clone(), IUS.ijk_to_ras))
    array = torch.zeros(20, 20, 20)
    array[5:15, 5:15, 5:15] = torch.rand(10, 10, 10) + 1
    with pytest.raises(InputError, match=r"covers only 1\.0 ml"):
        check_pair(WHOLE, Volume(array, np.eye(4)))


def test_speckle_does_not_depend_on_gain():
    half = IUS.replaced(IUS.array * 0.5)
    assert speckle(half) == pytest.approx(speckle(IUS), rel=1e-4)
    assert speckle(IUS) > 5 * speckle(CROP)


@pytest.mark.skipif(not CASE.exists(), reason="the RESECT data are not here")
@pytest.mark.parametrize("contrast", ["FLAIR", "T1"])
def test_real_crop(contrast):
    """Case 24, the hardest kind: the MRI is cut to the box of the iUS."""
    mri = Volume.read(CASE / f"Case24_{contrast}_in_USgrid.nii.gz")
    ius = Volume.read(CASE / "Case24_US_before.nii.gz")
    check_pair(mri, ius)
    assert speckle(rescaled(ius)) > 1.5 * SPECKLE_RATIO * speckle(rescaled(mri))
    with pytest.raises(InputError, match="they look swapped"):
        check_pair(ius, mri)


@pytest.mark.skipif(not DATA.exists(), reason="the RESECT data are not here")
def test_real_ultrasound_passes():
    mri = Volume.read(CASE / "Case24_T1_in_USgrid.nii.gz")
    paths = sorted((DATA / "resect" / "us").glob("*.nii.gz"))
    assert len(paths) == 8
    for path in paths:
        check_pair(mri, Volume.read(path))
