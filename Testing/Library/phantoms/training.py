"""A patient small enough to train on within a second."""

from __future__ import annotations

import numpy as np
import torch

from CrossKEYLib.config import DenseConfig, TrainConfig
from CrossKEYLib.descriptors.dense import DenseEncoder
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.synthesis.anatomy import Anatomy
from CrossKEYLib.training.patient.pairs import Patient

ENCODER = DenseConfig(width=4, dims=8)
SHORT = TrainConfig(
    steps=6,
    warmup_steps=2,
    crops=1,
    points=48,
    crop_mm=24.0,
    held_out=1,
    evaluations=3,
    save_seconds=0.0,
)
ORIGIN = [-20.0, 13.0, 41.0]


def texture(size: int = 48, seed: int = 0, grain: float = 2.0) -> Volume:
    """Smooth random structure in (0, 1], nowhere empty, 1 mm."""
    generator = torch.Generator().manual_seed(seed)
    array = gaussian(torch.rand(size, size, size, generator=generator), grain)
    array = (array - array.amin()) / (array.amax() - array.amin())
    return Volume(0.05 + 0.95 * array, from_parts(np.eye(3), ORIGIN))


def patient_of(mri: Volume, synthetic: list[Volume]) -> Patient:
    """A patient who is all brain, with ready-made synthetic ultrasound."""
    ones, zeros = torch.ones_like(mri.array), torch.zeros_like(mri.array)
    maps = torch.stack([zeros, zeros, zeros, ones])
    anatomy = Anatomy(mri.array[None], maps, mri.ijk_to_ras, torch.zeros(0, 6))
    return Patient([mri], anatomy, mri.replaced(ones), synthetic)


def small_patient(size: int = 40) -> Patient:
    """The ultrasound shows the MRI inverted."""
    mri = rescaled(texture(size))
    return patient_of(mri, [mri.replaced(1.01 - mri.array), mri.replaced((1.01 - mri.array) ** 2)])


def small_encoder(seed: int = 0) -> DenseEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenseEncoder(ENCODER)


def weights_of(encoder: torch.nn.Module) -> torch.Tensor:
    """Weights and running statistics in one vector."""
    return torch.cat([value.flatten().double() for value in encoder.state_dict().values()])
