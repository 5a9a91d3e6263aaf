"""The lead of self-similarities at a transform: at the truth, beside it, and where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.known import known
from phantoms.registered import TRUTH, pair
from phantoms.training import texture

from CrossKEYLib.estimation.feature_pair import FeaturePair
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import gamma_normalised
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.registration.features import SelfSimilarities
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.resources import resource
from CrossKEYLib.trust.mind_margin import mind_margin

LIMIT = 0.01  # what is right leads by more, what is beside or foreign by less


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume]:
    """MRI and gamma-normalised iUS, which shows a part of it at `TRUTH` in other intensities."""
    mri, ius = pair()
    shown = ius.array > 0
    other = torch.where(shown, (1.1 - ius.array) ** 1.5, 0)
    return mri, gamma_normalised(ius.replaced(other))


def test_half_a_mm_beside_still_leads(images):
    """A refinement that was not proven leaves the transform a little off its optimum."""
    beside = transform.from_parts(np.eye(3), [0.5, -0.4, 0.4]) @ TRUTH
    assert known(margin(*images, beside)) == pytest.approx(margin(*images, TRUTH), rel=0.1)


def margin(mri: Volume, ius: Volume, matrix: np.ndarray) -> float | None:
    seen = FeaturePair.of(SelfSimilarities(mri), ius, torch.empty(0, 3), matrix)
    return mind_margin(mri, seen, seen.refined(matrix), matrix)


def test_it_leads_at_the_truth_whatever_the_contrast(images):
    assert known(margin(*images, TRUTH)) > 5 * LIMIT


@pytest.mark.parametrize("way", [(1, 0, 0), (0, -1, 0), (0.6, 0, 0.8)])
def test_a_few_mm_beside_it_does_not_lead(images, way):
    """Near misses look right to the eye, and are what a surgeon must be kept from."""
    beside = transform.from_parts(np.eye(3), 4.0 * np.array(way)) @ TRUTH
    assert known(margin(*images, beside)) < LIMIT


@pytest.mark.parametrize("seed", range(4))
def test_other_tissue_never_leads(images, seed):
    stranger = texture(images[0].shape[0], seed=100 + seed)
    assert known(margin(stranger, images[1], TRUTH)) < LIMIT


def test_nothing_is_told_where_the_mri_shows_nothing(images):
    mri, ius = images
    away = transform.from_parts(np.eye(3), [500.0, 0.0, 0.0])
    assert margin(mri, ius, away @ TRUTH) is None
    assert margin(mri.replaced(0 * mri.array), ius, TRUTH) is None


def test_features_seen_nearby_serve_as_well(images):
    """Refinement moves the transform by a mm or two after both images were described."""
    mri, ius = images
    near = transform.random_rigid(np.random.default_rng(1), 1.5, 1.5, mri.centre_ras) @ TRUTH
    seen = FeaturePair.of(SelfSimilarities(mri), ius, torch.empty(0, 3), near)
    found = mind_margin(mri, seen, seen.refined(near), TRUTH)
    assert found == pytest.approx(margin(mri, ius, TRUTH), rel=0.25)


def test_the_place_of_the_world_does_not_matter(images):
    """Grids lie elsewhere after a motion, so the figure is the same within interpolation."""
    mri, ius = images
    motion = transform.random_rigid(np.random.default_rng(0), 30.0, 25.0, mri.centre_ras)
    moved = margin(mri.moved(motion), ius, motion @ TRUTH)
    assert moved == pytest.approx(margin(mri, ius, TRUTH), rel=0.25)


def test_a_mirrored_ultrasound_is_refused():
    """It fits the other hemisphere: matches, descriptors and halves agree, tissue does not."""
    mri, ius = (Volume.read(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
    result = register(mri, ius.replaced(ius.array.flip(2)))
    assert not result
    assert known(result.trust.mind_margin) < LIMIT
