"""The universal embedding: where its cells lie, what they see, tiles, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import settled_network, small_network

from CrossKEYLib.config import UAEConfig
from CrossKEYLib.descriptors.uae import STRIDES, UAENetwork, _joined, embed, fused
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Volume


@pytest.fixture(scope="module")
def network() -> UAENetwork:
    return settled_network()


def some_points(volume: Volume, count: int = 20, margin: float = 8.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    size = torch.tensor(volume.shape)
    return volume.points_ras(
        torch.rand(count, 3, generator=generator) * (size - 2 * margin) + margin
    )


def unit(head: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(head.float(), dim=0)


def test_the_full_network_has_the_promised_size():
    network = UAENetwork()
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 2.5e6
    fine, coarse, semantic = network.eval()(torch.rand(1, 2, 16, 24, 32))
    assert fine.shape == (1, 64, 8, 12, 16)
    assert coarse.shape == (1, 64, 2, 3, 4)
    assert semantic.shape == (1, 32, 4, 6, 8)


def test_the_coarse_head_sees_60_mm_and_nothing_beyond_its_margin(network):
    x = torch.rand(1, 2, 16, 16, 192, requires_grad=True)
    network(x).coarse[0, :, 1, 1, 12].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1, 2, 3)).nonzero().flatten()
    assert seen[0] <= 96 - 30
    assert seen[-1] >= 96 + 30
    x.grad = None
    network(x).fine[0, :, 4, 4, 48].sum().backward()
    reach = (x.grad.abs().sum((0, 1, 2, 3)).nonzero().flatten() - 96).abs().max()
    assert 60 < reach <= 77


def test_all_heads_give_unit_vectors_in_the_order_of_the_points(network):
    volume = texture(48)
    points = some_points(volume)
    found = embed(network, volume).at(points)
    again = embed(network, volume).at(points.flip(0))
    for head, other in zip(found, again, strict=True):
        torch.testing.assert_close(head.norm(dim=1), torch.ones(len(points)))
        torch.testing.assert_close(other.flip(0), head)


def test_a_descriptor_belongs_to_the_place_in_the_world(network):
    """However the array lies in the file: flipped and permuted axes give the same embedding."""
    volume = texture(48)
    flipped = np.array([[0, 0, 1.0, 0], [0, -1, 0, 47], [1, 0, 0, 0], [0, 0, 0, 1]])
    other = Volume(volume.array.permute(2, 1, 0).flip(1), volume.ijk_to_ras @ flipped)
    points = some_points(volume)
    torch.testing.assert_close(other.sample(points), volume.sample(points))
    both = (embed(network, v, half=False).at(points) for v in (volume, other))
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_moved_anatomy_takes_its_descriptor_along(network):
    volume = texture(48)
    shift = np.eye(4)
    shift[:3, 3] = [16.0, -24.0, 8.0]
    points = some_points(volume)
    here = embed(network, volume).at(points)
    there = embed(network, volume.moved(shift)).at(points + torch.tensor([16.0, -24, 8]))
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_tiles_agree_with_the_whole(network):
    generator = torch.Generator().manual_seed(0)
    long = Volume(torch.rand(24, 24, 432, generator=generator) + 0.1, np.eye(4))
    whole = embed(network, long, half=False)
    tiled = embed(network, long, half=False, max_voxels=24 * 24 * 350)
    for a, b in zip(
        (whole.fine, whole.coarse, whole.semantic),
        (tiled.fine, tiled.coarse, tiled.semantic),
        strict=True,
    ):
        torch.testing.assert_close(unit(a), unit(b), atol=1e-3, rtol=0)
    narrow = embed(network, long, half=False, max_voxels=24 * 24 * 100, margin_voxels=0)
    assert (
        unit(whole.fine) - unit(narrow.fine)
    ).abs().max() > 0.05  # tiles there were, and margins matter


def test_half_precision_says_the_same(network):
    volume = texture(64)
    points = some_points(volume)
    exact, half = (embed(network, volume, half=mode).at(points) for mode in (False, True))
    for a, b in zip(exact, half, strict=True):
        assert (a * b).sum(1).median() > 0.99


def test_folding_the_normalisation_changes_nothing(network):
    x = torch.rand(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for a, b in zip(network(x), fused(network)(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    kinds = [type(module) for module in fused(network).modules()]
    assert torch.nn.BatchNorm3d not in kinds
    assert torch.nn.BatchNorm3d in [type(module) for module in network.modules()]


def test_joining_levels_is_a_convolution_of_both(network):
    """What is computed before the upsampling equals what the whole convolution gives."""
    below = torch.rand(1, 24, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    beside = torch.rand(1, 16, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    lifted = torch.nn.functional.interpolate(below, scale_factor=2, mode="nearest")
    with torch.no_grad():
        expected = network.join4(torch.cat([lifted, beside], 1))
        torch.testing.assert_close(
            _joined(network.join4, below, beside), expected, atol=1e-5, rtol=1e-5
        )


def test_the_grid_holds_the_image_and_not_the_emptiness(network):
    volume = texture(48)
    array = torch.zeros(120, 60, 60)
    array[60:108, 4:52, 8:56] = volume.array
    found = embed(network, Volume(array, np.eye(4)))
    assert found.grid.shape == (56, 56, 64)
    assert found.spacing_mm == 2
    for stride, head in zip(STRIDES, (found.fine, found.coarse, found.semantic), strict=True):
        assert [n * stride for n in head.shape[1:]] == list(found.grid.shape)
    middle = found.filled.nonzero().float().mean(0) * 2
    np.testing.assert_allclose(
        found.grid.ijk_to_ras[:3, 3] + middle.flip(0).numpy(), [31.5, 27.5, 83.5], atol=1.0
    )


def test_a_constant_volume_is_refused():
    with pytest.raises(InputError, match="constant"):
        embed(small_network().eval(), Volume(torch.ones(8, 8, 8), np.eye(4)))


def test_size_follows_the_settings():
    network = small_network(config=UAEConfig(width=4, fine_dims=6, coarse_dims=10, semantic_dims=2))
    found = network.eval()(torch.rand(1, 2, 8, 8, 8))
    assert [head.shape[1] for head in found] == list(network.dims()) == [6, 10, 2]
