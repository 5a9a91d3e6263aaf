"""The dense encoder: feature positions, independence of parts, modes and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CrossKEYLib.config import DenseConfig
from CrossKEYLib.descriptors.dense import DenseEncoder, FeatureMap
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Volume


def encoder(**settings: float) -> DenseEncoder:
    """Random weights; statistics and bias set so that descriptors differ between places."""
    torch.manual_seed(0)
    network = DenseEncoder(DenseConfig(width=4, dims=8, **settings))  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None  # a plain mean over what it sees
    with torch.no_grad():
        for modality in ("mri", "ius"):
            (features,) = network.maps([noise(32)], modality)
        network.head.bias -= features.array.mean((1, 2, 3))
    return network.eval()


def noise(size: int = 48) -> Volume:
    generator = torch.Generator().manual_seed(1)
    return Volume(torch.rand(size, size, size, generator=generator), np.eye(4))


def test_descriptors_are_unit_vectors_in_the_order_of_the_points() -> None:
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(2)) * 30 + 8
    network, volume = encoder(), noise()
    found = network.describe(volume, points, "mri")
    torch.testing.assert_close(found.norm(dim=1), torch.ones(20))
    again = network.describe(volume, points.flip(0), "mri").flip(0)
    torch.testing.assert_close(again, found)


def test_a_feature_belongs_to_the_place_of_its_input_voxel() -> None:
    """Sampling a feature map at input voxel 2n reads exactly feature n."""
    network = encoder()
    matrix = np.array([[0, -1.0, 0, 5], [1, 0, 0, -3], [0, 0, 1, 9], [0, 0, 0, 1]])
    volume = Volume(noise(32).array, matrix)
    with torch.no_grad():
        (features,) = network.maps([volume], "ius")
    point = volume.points_ras(torch.tensor([[6.0, 8.0, 10.0]]))
    expected = torch.nn.functional.normalize(features.array[:, 3, 4, 5], dim=0)
    torch.testing.assert_close(features.sample(point)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_landmark_moves_its_response_with_it() -> None:
    """Shift the image by whole cells: the descriptor at the shifted place stays the same."""
    network = encoder(context_mm=32.0)
    array = torch.zeros(112, 112, 112)
    array[40:72, 40:72, 40:72] = noise(32).array
    volume = Volume(array + 0.2, np.eye(4))
    shift = np.eye(4)
    shift[:3, 3] = [16.0, -16.0, 0.0]
    points = torch.tensor([[55.0, 56.0, 57.0], [50.0, 61.0, 52.0]])
    here = network.describe(volume, points, "mri")
    there = network.describe(volume.moved(shift), points + torch.tensor([16.0, -16, 0]), "mri")
    torch.testing.assert_close(here, there, atol=1e-3, rtol=1e-3)


def test_far_from_the_origin_is_as_near_to_it() -> None:
    """Scanners put the origin where they like; half precision must not reach coordinates."""
    network, volume = encoder(), noise()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 30 + 8
    away = torch.tensor([896.0, -768.0, 512.0])  # whole cells of the lattice
    far = np.eye(4)
    far[:3, 3] = away
    here = network.describe(volume, points, "mri")
    there = network.describe(volume.moved(far), points + away, "mri")
    torch.testing.assert_close(there, here, atol=1e-2, rtol=0)


def test_rotating_volume_and_axes_together_changes_nothing() -> None:
    network = encoder()
    quarter = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    volume = noise()
    points = torch.rand(10, 3, generator=torch.Generator().manual_seed(3)) * 16 + 16
    turned = points @ torch.tensor(quarter[:3, :3].T, dtype=torch.float32)
    here = network.describe(volume, points, "ius")
    there = network.describe(volume.moved(quarter), turned, "ius", quarter[:3, :3])
    torch.testing.assert_close(here, there, atol=2e-2, rtol=0)  # half precision inside
    other = network.describe(volume.moved(quarter), turned, "ius")
    assert (here - other).abs().max() > 0.1  # without the rotation it is another view


def test_modalities_have_their_own_stems() -> None:
    network, volume, points = encoder(), noise(), torch.full((1, 3), 24.0)
    apart = network.describe(volume, points, "mri") - network.describe(volume, points, "ius")
    assert apart.abs().max() > 0.05
    with pytest.raises(InputError, match="modality"):
        network.describe(volume, points, "ct")


def test_no_points_give_no_descriptors() -> None:
    assert encoder().describe(noise(), torch.zeros(0, 3), "mri").shape == (0, 8)


def test_feature_map_between_cells_is_interpolated() -> None:
    array = torch.zeros(2, 2, 2, 2)
    array[0, :, :, 1] = 1
    array[1, :, :, 0] = 1
    middle = FeatureMap(array, np.eye(4)).sample(torch.tensor([[0.5, 0.5, 0.5]]))
    torch.testing.assert_close(middle, torch.full((1, 2), 0.5**0.5))
