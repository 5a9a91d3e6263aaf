"""A small embedding network, and subjects to train it on within seconds."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from CrossKEYLib.config import UAEConfig, UniversalTrainConfig
from CrossKEYLib.descriptors.uae import STRIDES, Embedding, UAENetwork, embed
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.training.universal.views import Subject, read_subject
from phantoms.training import texture

NETWORK = UAEConfig(width=4, fine_dims=8, coarse_dims=8, semantic_dims=4)
WIDER = UAEConfig(width=8)
BRIEF = UniversalTrainConfig(
    steps=4,
    warmup_steps=2,
    crops=2,
    points=48,
    candidates=96,
    hard=16,
    diverse=16,
    others=16,
    crop_mm=32.0,
    shift_mm=3.0,
    held_out=1,
    evaluations=2,
    save_seconds=0.0,
)


def brief_yaml() -> dict:
    """Sections of a YAML that trains `NETWORK` within a second."""
    brief = {"points": 48, "candidates": 64, "crop_mm": 24, "shift_mm": 2, "held_out": 1}
    return {
        "network": {"width": 4, "fine_dims": 8, "coarse_dims": 8, "semantic_dims": 4},
        "training": {"steps": 2, "evaluations": 1, **brief},
    }


def small_network(seed: int = 0, config: UAEConfig = NETWORK) -> UAENetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UAENetwork(config)


def settled_network(config: UAEConfig = WIDER) -> UAENetwork:
    """Random weights, but statistics and biases such that descriptors differ between places.

    Random convolutions already tell places of one image apart; what training adds is that they
    do so between contrasts, which these tests need not.
    """
    network = small_network(1, config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None  # a plain mean over what it sees
    image = texture(64, seed=9).array[None, None]
    x = torch.cat([image, torch.ones_like(image)], 1)
    with torch.no_grad():
        network(x)
        for head, found in zip(
            (network.fine, network.coarse, network.semantic), network(x), strict=True
        ):
            assert head.bias is not None
            head.bias -= found.mean((0, 2, 3, 4))
    return network.eval()


def settled_model() -> UniversalModel:
    return UniversalModel(settled_network(), "settled")


class OffsetModel(UniversalModel):
    """Stands for a trained network, which these tests cannot wait for: a place is described by
    the smoothed intensities at random offsets around it, nearer ones for the fine head."""

    def __init__(self) -> None:
        super().__init__(small_network(), "offsets")

    def embed(self, volume: Volume) -> Embedding:
        found = embed(self.network.eval(), volume)
        heads = []
        for dims, stride, reach in zip((48, 32, 16), STRIDES, (7.0, 14.0, 10.0), strict=True):
            generator = torch.Generator().manual_seed(stride)
            offsets = reach * torch.randn(dims, 3, generator=generator)
            smooth = volume.replaced(gaussian(volume.array, 1.0 + reach / 7))
            shape = [n // stride for n in found.grid.shape]
            cells = Grid((shape[0], shape[1], shape[2]), found.affine(stride)).points()
            values = torch.stack([smooth.sample(cells + offset) for offset in offsets])
            values = values - values.mean(0)
            heads.append(F.normalize(values, dim=0))
        return replace(found, fine=heads[0], coarse=heads[1], semantic=heads[2])


def small_subject(seed: int = 0, labelled: bool = True, size: int = 56) -> Subject:
    """Two contrasts, one the other inverted; labels are four blocks."""
    image = texture(size, seed=seed, grain=2.5)
    inverted = image.replaced(1.05 - image.array)
    labels = torch.zeros_like(image.array)
    half = size // 2
    labels[:half, :half], labels[half:, :half] = 1, 2
    known = image.replaced(labels) if labelled else None
    return read_subject(f"subject {seed}", [image, inverted], known)
