"""What a GPU computes is what a processor computes in full precision; `make gpu` runs these.

Without a CUDA device the same runs on the processor, where mixed precision and the number of values
that are read one by one are checked all the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.matches import simulate
from phantoms.training import texture

from CrossKEYLib.config import EstimateConfig, MatchConfig, ResNetConfig
from CrossKEYLib.descriptors.dense import DenseEncoder
from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.estimation.descriptor_score import DescriptorGrid, DescriptorScore
from CrossKEYLib.estimation.matching import match
from CrossKEYLib.estimation.ransac import estimate_rigid
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model
from Testing.Studies.gpu import transfers

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load()


@pytest.fixture(scope="module")
def volume() -> Volume:
    return rescaled(texture(48, grain=1.5))


def unit(rows: int, dims: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dims, generator=generator), dim=1)


def inside(volume: Volume, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.as_tensor(volume.corners_ras()).float()
    low, high = corners.amin(0) + 6, corners.amax(0) - 6
    return low + torch.rand(count, 3, generator=generator) * (high - low)


def test_mixed_precision_leaves_descriptors_as_they_are_in_full(model, volume, device) -> None:
    points = inside(volume, 300)
    encoder = model.encoder
    assert isinstance(encoder, DenseEncoder)
    seen = volume.resample(encoder._grid(points, np.eye(3)))
    with torch.inference_mode():
        exact = encoder.maps([seen], "mri")[0].sample(points)
    there = model.to(device).describe(volume.to(device), points.to(device), "mri")
    assert there.points.device.type == device.type
    alike = (there.descriptors.cpu() * exact).sum(1)
    assert float(alike.min()) > 0.98
    assert float(alike.mean()) > 0.998
    assert not torch.equal(there.descriptors.cpu(), exact)  # it is in use
    model.to("cpu")


def test_patches_are_described_alike(volume, device) -> None:
    network = ResNetDescriptor(
        ResNetConfig(width=8, dims=32, patch_size=16), torch.Generator().manual_seed(0)
    ).eval()
    points = inside(volume, 40)
    once = network.describe(volume, points)
    there = network.to(device).describe(volume.to(device), points.to(device), chunk=7)
    torch.testing.assert_close(there.cpu(), once, atol=2e-4, rtol=0)


def test_matches_are_the_nearest_of_float64(device) -> None:
    fixed, moving = unit(3000, 32, 0), unit(200, 32, 1)
    places = torch.randn(3000, 3) * 50, torch.randn(200, 3) * 20
    config = MatchConfig(method="nearest", max_matches=200)
    found = match(*(x.to(device) for x in (fixed, moving, *places)), config).indices.cpu()
    similarity = moving.double() @ fixed.double().T
    best, chosen = similarity.amax(1), similarity[found[:, 1], found[:, 0]]
    assert len(found) == 200
    assert float((best[found[:, 1]] - chosen).max()) < 0.01  # rounded factors, see `precision`


def test_a_transform_scores_as_in_float64(device) -> None:
    steps = torch.arange(0.0, 24, 2)
    places = torch.cartesian_prod(steps, steps, steps) + 0.3
    fixed, moving = unit(len(places), 16, 2), unit(100, 16, 3)
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(4)) * 20 + 2
    score = DescriptorScore(
        DescriptorGrid(places.to(device), fixed.to(device)), points.to(device), moving.to(device)
    )
    shift = transform.from_parts(np.eye(3), [1.5, -0.5, 1.0])
    landed = transform.apply(shift, points.double())
    cell = torch.floor((landed - (places.amin(0) - 3)) / 2)
    own = torch.floor((places - (places.amin(0) - 3)) / 2).double()
    similarity = moving.double() @ fixed.double().T
    standard = (similarity - similarity.mean(1, keepdim=True)) / similarity.std(
        1, correction=0, keepdim=True
    )
    hit = (cell[:, None] == own[None]).all(2)
    expected = float((standard * hit).sum(1).mean())
    assert abs(score.at(shift) - expected) < 0.02


def test_the_transform_is_found(device) -> None:
    pairs = simulate(0, share=0.2)
    generator = torch.Generator().manual_seed(0)
    config = EstimateConfig(hypotheses=4000)
    found = estimate_rigid(pairs.fixed.to(device), pairs.moving.to(device), config, generator)
    assert pairs.tre(found.matrix) < 1.0


def test_more_points_do_not_mean_more_transfers(model, volume, device) -> None:
    there, image = model.to(device), volume.to(device)
    counts = [
        transfers(lambda n=n: there.describe(image, inside(volume, n).to(device), "mri"), device)
        for n in (200, 2000)
    ]
    model.to("cpu")
    assert counts[1] <= counts[0] + 2
    assert counts[1] < 40


def test_more_hypotheses_do_not_mean_more_transfers(device) -> None:
    steps = torch.arange(0.0, 40, 2)
    places = torch.cartesian_prod(steps, steps, steps)
    grid = DescriptorGrid(places.to(device), unit(len(places), 16, 5).to(device))
    points = inside(Volume(torch.zeros(40, 40, 40), np.eye(4)), 500)
    score = DescriptorScore(grid, points.to(device), unit(500, 16, 6).to(device))
    matrices = torch.eye(4, dtype=torch.float64).repeat(2000, 1, 1)
    few, many = (transfers(lambda n=n: score(matrices[:n]), device) for n in (20, 2000))
    assert many <= few + 2
    assert many < 20
