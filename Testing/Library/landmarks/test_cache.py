"""What is kept between two questions about the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import OffsetModel

from CrossKEYLib.descriptors.uae import Embedding
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.landmarks import cache
from CrossKEYLib.landmarks.cache import EmbeddedImages
from CrossKEYLib.landmarks.propagate import locate_points
from CrossKEYLib.models.universal import UniversalModel

MOVE = transform.from_parts(np.eye(3), [7.0, -11.0, 5.0])


class CountingModel(OffsetModel):
    """Counts what it embeds."""

    count = 0

    def to(self, device: object) -> UniversalModel:
        return self

    def embed(self, volume: Volume) -> Embedding:
        type(self).count += 1
        return super().embed(volume)


@pytest.fixture
def images(monkeypatch) -> EmbeddedImages:
    monkeypatch.setattr(CountingModel, "count", 0)
    return EmbeddedImages(CountingModel())


def test_an_image_is_embedded_once_and_a_pair_kept(images):
    a = texture(48, grain=2.5)
    b = a.moved(MOVE)
    point = a.points_ras(torch.tensor([[24.0, 20, 26]]))
    assert not images.knows(a)
    first = images.pair(a, b)
    again = images.pair(Volume(a.array.clone(), a.ijk_to_ras.copy()), b)
    assert again is first, "the same samples in the same place are the same image"
    assert CountingModel.count == 2
    assert images.knows(a)
    back = images.pair(b, a)
    assert back is not first
    assert CountingModel.count == 2
    fresh = locate_points(first.here, first.there, point)
    for _ in range(2):
        found = first.locate(point)
        assert torch.equal(found.points, fresh.points)
        assert torch.equal(found.spreads, fresh.spreads)


def test_what_was_used_longest_ago_is_forgotten(images, monkeypatch):
    monkeypatch.setattr(cache, "KEPT", 2)
    a, b, c = (texture(32, seed=seed) for seed in (1, 2, 3))
    for volume in (a, b, a, c):
        images.embed(volume)
    assert [images.knows(volume) for volume in (a, b, c)] == [True, False, True]
