"""Sizes of the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .values import Count, NotNegative, Positive, Settings

Modality = Literal["mri", "ius"]  # which of them a descriptor is of


@dataclass(frozen=True)
class DenseConfig(Settings):
    """Size of the dense encoder."""

    width: Count = 32  # channels of the finest level; coarser levels have 2, 4 and 4 times as many
    dims: Count = 64
    spacing_mm: Positive = 1.0
    context_mm: NotNegative = 12.0  # seen beyond the outermost point


@dataclass(frozen=True)
class ResNetConfig(Settings):
    """Patch descriptor; the defaults are the network of the CrossKEY paper (arXiv 2507.18551)."""

    width: Count = 64  # channels of the first stage; the last has eight times as many
    dims: Count = 512  # length of a descriptor
    patch_size: Count = 32  # samples a side
    patch_spacing_mm: Positive = 1.0
    patch_axes: str = "SAR"  # directions in which patch indices k, j, i grow

    @classmethod
    def narrow(cls) -> ResNetConfig:
        """A sixteenth of the arithmetic, for processors without an accelerator."""
        return cls(width=16, dims=128)


@dataclass(frozen=True)
class UAEConfig(Settings):
    """Size of the universal anatomical embedding's network."""

    width: Count = 32  # channels at stride 2; strides 4 and 8 have 2 and 3 times as many
    fine_dims: Count = 64
    coarse_dims: Count = 64
    semantic_dims: Count = 32
    spacing_mm: Positive = 1.0  # of the grid that it sees
