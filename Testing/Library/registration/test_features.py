"""The gate and the refinement that dense features add to a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import small_encoder, texture
from phantoms.universal import OffsetModel

from CrossKEYLib.config import RegisterConfig, ResNetConfig
from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.errors import InputError
from CrossKEYLib.estimation.feature_pair import FeaturePair, aligned
from CrossKEYLib.estimation.matching import Matches
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.described import Described
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration.features import (
    EmbeddingFeatures,
    check_settings,
    features_of,
    wants_universal,
)
from CrossKEYLib.registration.pipeline import register


@pytest.fixture(scope="module")
def image() -> Volume:
    return texture(64, seed=3, grain=3.0)


def inner_points(image: Volume, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return image.points_ras(torch.rand(count, 3, generator=generator) * 36 + 14)


def test_the_gate_passes_right_matches_and_few_wrong_ones(image):
    motion = transform.random_rigid(np.random.default_rng(0), 20.0, 90.0, image.centre_ras)
    turned = motion[:3, :3]
    embedding = EmbeddingFeatures.of(OffsetModel(), image)
    places = inner_points(image, 300)
    laid = image.moved(motion)
    fixed = Described(places, torch.zeros(len(places), 1))
    moving = Described(transform.apply(motion, places), fixed.descriptors)
    rows = torch.arange(300)
    for shift, least, most in ((0, 0.9, 1.0), (150, 0.05, 0.5)):
        matches = Matches(torch.stack([rows, (rows + shift) % 300], 1), torch.ones(300))
        kept = embedding.gated(matches, fixed, moving, laid, turned.T, 0.25)
        assert least <= len(kept) / 300 <= most
        assert len(kept.scores) == len(kept)
        assert {tuple(row) for row in kept.indices.tolist()} <= {
            tuple(row) for row in matches.indices.tolist()
        }


def test_refinement_by_the_embedding_finds_the_way_back(image):
    """The start is several millimetres and degrees off; features come from the images."""
    truth = transform.random_rigid(np.random.default_rng(1), 10.0, 8.0, image.centre_ras)
    off = transform.random_rigid(np.random.default_rng(2), 2.0, 3.0, image.centre_ras)
    moving = image.moved(transform.invert(truth))
    points = transform.apply(transform.invert(truth), inner_points(image, 800))
    embedding = EmbeddingFeatures.of(OffsetModel(), image)
    model = Model(small_encoder(), "small")
    features = features_of("uae", image, model, embedding)
    fit = FeaturePair.of(features, moving, points, off @ truth).refined(off @ truth)
    assert fit
    errors = [
        float((transform.apply(m, points) - transform.apply(truth, points)).norm(dim=1).mean())
        for m in (off @ truth, fit.matrix)
    ]
    assert errors[0] > 2.0
    assert errors[1] < 0.5


def test_the_encoders_features_lie_where_the_points_do(image):
    """Read off the map, a place has the descriptor that registration matches it by."""
    model = Model(small_encoder().eval(), "small")
    places = inner_points(image, 50)
    features = features_of("crosskey", image, model, None)
    maps = features.fixed_map(places), features.moving_map(image, places)
    for found, modality in zip(maps, ("mri", "ius"), strict=True):
        described = model.describe(rescaled(image), places, modality).descriptors
        assert (found.sample(places) * described).sum(1).min() > 0.999


def test_unknown_features_are_refused():
    with pytest.raises(InputError, match="refine: expected none or crosskey or uae"):
        RegisterConfig(refine="sift")  # type: ignore[arg-type]


def test_features_that_are_not_at_hand_are_refused(image):
    patches = Model(ResNetDescriptor(ResNetConfig(width=4, dims=8)), "patches")
    with pytest.raises(InputError, match="needs the universal embedding"):
        features_of("uae", image, patches, None)
    with pytest.raises(InputError, match="needs a dense encoder"):
        features_of("crosskey", image, patches, None)


def test_settings_that_need_an_embedding_ask_for_one(image):
    with pytest.raises(InputError, match="need a universal embedding that knows ultrasound"):
        register(image, image, Model(small_encoder(), "small"), config=RegisterConfig(refine="uae"))
    assert wants_universal(RegisterConfig(refine="uae"))
    assert wants_universal(RegisterConfig(gate_share=0.5))
    assert not wants_universal(RegisterConfig(refine="crosskey"))
    assert not wants_universal(RegisterConfig())  # nobody has to have one


def test_patch_networks_have_no_map():
    patches = Model(ResNetDescriptor(ResNetConfig(width=4, dims=8)), "patches")
    check_settings(RegisterConfig(), patches)
    with pytest.raises(InputError, match="needs a dense encoder"):
        check_settings(RegisterConfig(refine="crosskey"), patches)


def test_self_similarity_finds_the_way_back_to_the_negative(image):
    """Another modality: dark where the first is bright, with noise of its own."""
    truth = transform.random_rigid(np.random.default_rng(3), 10.0, 8.0, image.centre_ras)
    off = transform.random_rigid(np.random.default_rng(4), 1.5, 2.0, image.centre_ras)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(5))
    negative = image.array.max() + 0.1 - image.array + 0.02 * noise
    moving = image.replaced(negative).moved(transform.invert(truth))
    model = Model(small_encoder(), "small")
    features = features_of("mind", image, model, None)
    fit = FeaturePair.of(features, moving, torch.empty(0, 3), off @ truth).refined(off @ truth)
    assert fit
    points = transform.apply(transform.invert(truth), inner_points(image, 500))
    errors = [
        float((transform.apply(m, points) - transform.apply(truth, points)).norm(dim=1).mean())
        for m in (off @ truth, fit.matrix)
    ]
    assert errors[0] > 1.0
    assert errors[1] < 0.3


def test_what_is_far_turned_is_described_until_it_settles(image):
    """Some degrees off, self-similarities are not quite those that the image has in place."""
    off = transform.random_rigid(np.random.default_rng(6), 1.0, 3.0, image.centre_ras)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(7))
    moving = image.replaced(image.array.max() + 0.1 - image.array + 0.05 * noise)
    features = features_of("mind", image, Model(small_encoder(), "small"), None)
    once = FeaturePair.of(features, moving, torch.empty(0, 3), off).refined(off)
    seen, settled = aligned(features, moving, torch.empty(0, 3), off)
    assert once
    assert settled
    assert (settled.gain, settled.gain_error) == (once.gain, once.gain_error)
    assert np.array_equal(settled.matrix, settled.fitted)
    points = inner_points(image, 500)
    errors = [
        float((transform.apply(fit.matrix, points) - points).norm(dim=1).mean())
        for fit in (once, settled)
    ]
    assert errors[1] < 0.7 * errors[0]
    again = seen.laid_anew(features, moving, settled.matrix)
    further = again.refined(settled.matrix, settled)
    ways = transform.apply(further.matrix, points) - transform.apply(settled.matrix, points)
    assert float(ways.norm(dim=1).mean()) < 0.1
    assert seen.points.shape[1] == 3
    assert np.isfinite(settled.uncertainty_mm)
