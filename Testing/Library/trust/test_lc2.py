"""LC2: the fit in a patch against least squares, and its lead at the truth and elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.known import known
from phantoms.registered import TRUTH, pair
from phantoms.training import texture

from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.trust.lc2 import explained, lc2_margin

LIMIT = 0.1  # what is right leads by more, what is beside or foreign by less


def test_a_patch_is_fitted_as_by_least_squares():
    rng = np.random.default_rng(0)
    u, p, g = rng.normal(size=(3, 4, 125))
    u[0] = 2 + 3 * p[0] - 0.5 * g[0]  # wholly explained
    products = [u, p, g, u * u, p * p, g * g, u * p, u * g, p * g]
    moments = torch.from_numpy(np.stack([x.mean(1) for x in products]))
    part, whole = explained(moments, ridge=0.0)
    for n in range(4):
        design = np.stack([np.ones(125), p[n], g[n]], 1)
        left = np.linalg.lstsq(design, u[n], rcond=None)[1] / 125
        assert float(whole[n]) == pytest.approx(u[n].var())
        assert float(whole[n] - part[n]) == pytest.approx(float(left[0]), abs=1e-9)


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume]:
    """MRI and iUS, which shows a part of it at `TRUTH`, dark where that is bright, and speckled."""
    mri, ius = pair()
    speckle = 0.05 * torch.randn(ius.shape, generator=torch.Generator().manual_seed(0))
    other = ((1.1 - ius.array) ** 1.5 + speckle).clamp_min(0.01)
    return mri, ius.replaced(torch.where(ius.array > 0, other, 0))


def test_the_truth_explains_more_than_beside(images):
    assert known(lc2_margin(*images, TRUTH)) > 2 * LIMIT


@pytest.mark.parametrize("way", [(1, 0, 0), (0, -1, 0), (0.6, 0, 0.8)])
def test_a_few_mm_beside_explains_no_more_than_elsewhere(images, way):
    beside = transform.from_parts(np.eye(3), 4.0 * np.array(way)) @ TRUTH
    assert known(lc2_margin(*images, beside)) < LIMIT


@pytest.mark.parametrize("seed", range(4))
def test_other_tissue_explains_as_little_here_as_beside(images, seed):
    stranger = texture(images[0].shape[0], seed=100 + seed)
    assert abs(known(lc2_margin(stranger, images[1], TRUTH))) < LIMIT


def test_brightness_and_scale_do_not_matter(images):
    mri, ius = images
    scaled = (
        mri.replaced(700 * mri.array),
        ius.replaced(torch.where(ius.array > 0, 90, 0) * ius.array),
    )
    assert lc2_margin(*scaled, TRUTH) == pytest.approx(lc2_margin(*images, TRUTH), rel=0.01)


def test_the_place_of_the_world_does_not_matter(images):
    mri, ius = images
    motion = transform.random_rigid(np.random.default_rng(0), 300.0, 25.0, mri.centre_ras)
    moved = lc2_margin(mri.moved(motion), ius, motion @ TRUTH)
    assert moved == pytest.approx(lc2_margin(mri, ius, TRUTH), rel=0.02)


def test_nothing_is_told_where_the_mri_shows_nothing(images):
    mri, ius = images
    away = transform.from_parts(np.eye(3), [500.0, 0.0, 0.0])
    assert lc2_margin(mri, ius, away @ TRUTH) is None
    assert lc2_margin(mri.replaced(0 * mri.array), ius, TRUTH) is None
