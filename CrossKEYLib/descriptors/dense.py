"""Dense descriptors of a volume in one pass: the narrow variant of the encoder, for CPUs.

A patch network repeats the same convolutions for every point, because neighbouring patches overlap
almost completely. One pass over the volume gives the descriptors of all points, which are sampled
from the feature map by trilinear interpolation. Each modality has its own stem; all other layers
are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import DenseConfig, Modality
from ..errors import InputError
from ..geometry import transform
from ..geometry.filters import sample_channels
from ..geometry.volume import Grid, Volume

MODALITIES = get_args(Modality)
Padding = Literal["zeros", "replicate"]
COARSEST = 16  # voxels of the input per cell of the coarsest level


class DenseEncoder(nn.Module):
    """U-shaped encoder with features at stride 2.

    Volumes given to it are scaled to [0, 1] (`intensity.rescaled`), with 0 meaning empty.
    """

    def __init__(self, config: DenseConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenseConfig()
        w = config.width
        self.stems = nn.ModuleDict(
            {
                m: nn.Sequential(_conv(2, w, stride=2, padding="zeros"), _Block(w, "zeros"))
                for m in MODALITIES
            }
        )
        self.level1 = _Block(w, "zeros")
        self.level2 = nn.Sequential(_conv(w, 2 * w, stride=2), _Block(2 * w), _Block(2 * w))
        self.level3 = nn.Sequential(_conv(2 * w, 4 * w, stride=2), _Block(4 * w), _Block(4 * w))
        self.level4 = nn.Sequential(_conv(4 * w, 4 * w, stride=2), _Block(4 * w))
        self.up3 = _conv(8 * w, 4 * w, size=1)
        self.up2 = _conv(6 * w, 2 * w)
        self.up1 = nn.Sequential(_conv(3 * w, w, size=1), _conv(w, 2 * w, padding="zeros"))
        self.head = nn.Conv3d(2 * w, config.dims, 1)

    def forward(self, x: torch.Tensor, modality: str) -> torch.Tensor:
        """Features ``[B, dims, K/2, J/2, I/2]`` of ``x [B, 2, K, J, I]`` (value, filled).

        K, J and I are multiples of `COARSEST`; features are not normalised.
        """
        fine = self.level1(self.stems[modality](x))
        middle = self.level2(fine)
        coarse = self.level3(middle)
        coarse = self.up3(torch.cat([_upsampled(self.level4(coarse)), coarse], 1))
        middle = self.up2(torch.cat([_upsampled(coarse), middle], 1))
        return self.head(self.up1(torch.cat([_upsampled(middle), fine], 1)))

    def maps(self, volumes: Sequence[Volume], modality: str) -> list[FeatureMap]:
        """Feature maps of scaled volumes of one shape, each on its own `spacing_mm` grid."""
        array = torch.stack([volume.array for volume in volumes])
        pad = [n for size in reversed(array.shape[1:]) for n in (0, -size % COARSEST)]
        x = F.pad(torch.stack([array, (array > 0).float()], 1), pad)
        found = self(x.contiguous(memory_format=torch.channels_last_3d), modality).float()
        # A strided 3x3x3 convolution padded by one centres its n-th output on input 2n.
        double = np.diag([2.0, 2.0, 2.0, 1.0])
        return [FeatureMap(f, v.ijk_to_ras @ double) for f, v in zip(found, volumes, strict=True)]

    @torch.inference_mode()
    def describe(
        self,
        volume: Volume,
        points: torch.Tensor,
        modality: str,
        rotation: np.ndarray | None = None,
        max_voxels: int = 4_000_000,
    ) -> torch.Tensor:
        """Unit descriptors ``[N, dims]`` of RAS ``points [N, 3]`` in a scaled volume.

        Args:
            volume: scaled to [0, 1]; any grid.
            points: RAS mm.
            modality: "mri" or "ius".
            rotation: 3x3, columns = axes of the grid the network sees; RAS axes by default.
            max_voxels: larger regions are described in parts, which bounds the memory.

        Raises:
            InputError: unknown modality.
        """
        if modality not in MODALITIES:
            raise InputError(f"modality must be one of {MODALITIES}, got {modality!r}")
        if len(points) == 0:
            return points.new_zeros(0, self.config.dims)
        axes = np.eye(3) if rotation is None else rotation
        grid = self._grid(points, axes)
        if np.prod(grid.shape) > max_voxels and len(points) > 1:
            local = points @ torch.as_tensor(axes, dtype=points.dtype, device=points.device)
            axis = int((local.amax(0) - local.amin(0)).argmax())
            middle = local[:, axis] > local[:, axis].median()
            if bool(middle.any()):
                out = points.new_empty(len(points), self.config.dims)
                for half in (middle, ~middle):
                    out[half] = self.describe(volume, points[half], modality, axes, max_voxels)
                return out
        return self._map(volume, grid, modality).sample(points)

    @torch.inference_mode()
    def map_around(self, volume: Volume, points: torch.Tensor, modality: str) -> FeatureMap:
        """Features along the RAS axes of the box that holds RAS ``points [N, 3]``, in one piece.

        Args:
            volume: scaled to [0, 1]; any grid.
            points: RAS mm.
            modality: "mri" or "ius".
        """
        return self._map(volume, self._grid(points, np.eye(3)), modality)

    def _grid(self, points: torch.Tensor, axes: np.ndarray) -> Grid:
        """A grid around points, on a fixed lattice that does not depend on the points."""
        lattice_mm = COARSEST * self.config.spacing_mm
        around = points.cpu().numpy()
        return Grid.around(around, self.config.spacing_mm, self.config.context_mm, axes, lattice_mm)

    def _map(self, volume: Volume, grid: Grid, modality: str) -> FeatureMap:
        seen = volume.resample(grid)  # outside autocast: half precision would round coordinates
        with torch.autocast(volume.device.type, torch.bfloat16, enabled=not self.training):
            (features,) = self.maps([seen], modality)
        return features


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features ``[D, K, J, I]`` and the affine of their grid."""

    array: torch.Tensor
    ijk_to_ras: transform.Matrix

    def sample(self, points: torch.Tensor) -> torch.Tensor:
        """Unit descriptors ``[N, D]`` at RAS points ``[N, 3]``."""
        values = sample_channels(self.array, transform.invert(self.ijk_to_ras), points)
        return F.normalize(values.T, dim=1)


class _Block(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, channels: int, padding: Padding = "replicate") -> None:
        super().__init__()
        self.first = _conv(channels, channels, padding=padding)
        self.second = _conv(channels, channels, padding=padding)[:2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)))


def _conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: Padding = "replicate"
) -> nn.Sequential:
    # With zero padding the network could learn where in the crop a voxel lies. At the finest level
    # its reach is short, and replication is slow.
    mode: Padding = padding if size > 1 else "zeros"
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, size, stride, size // 2, bias=False, padding_mode=mode),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def _upsampled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
