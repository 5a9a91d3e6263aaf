"""Universal anatomical embedding: descriptors of the anatomy at every voxel of an image.

Fully convolutional, after UAE (Bai et al., arXiv 2311.15111). The fine head distinguishes
neighbouring points, the coarse head the position in the body, the semantic head the structure. All
contrasts share one stem: training changes intensities so much that the network learns to ignore
them.

Normalisation uses statistics of the training (Ioffe and Szegedy, arXiv 1502.03167; a step has a
million voxels, so few crops suffice) and is fixed afterwards. A volume that is embedded in tiles
therefore gets the same embedding as in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..config import UAEConfig
from ..geometry import transform
from ..geometry.ct import windowed
from ..geometry.filters import gaussian, sample_channels
from ..geometry.intensity import rescaled
from ..geometry.volume import Grid, Volume
from .dense import FeatureMap

STRIDES = (2, 8, 4)  # voxels of the input per cell of the fine, coarse and semantic head
COARSEST = 8
BLOCK = 4  # voxels, of the search for what an image fills
MOMENTUM = 0.05  # of the statistics
DIMMEST = 1e-3  # of the voxels that the image fills, as in training
DARKEST = 0.03  # smoothed intensity of what counts as image
MARGIN = 80  # voxels; a cell of the fine head depends on 77 to each side


class Maps(NamedTuple):
    """Features ``fine [B, D, K/2, J/2, I/2]``, and ``coarse`` and ``semantic`` at stride 8 and 4.

    Cell n of a head of stride s lies on input voxel s n. The features are not normalised: training
    reads only a few thousand of them, and normalising all would take a third of its time.
    """

    fine: torch.Tensor
    coarse: torch.Tensor
    semantic: torch.Tensor


class UAENetwork(nn.Module):
    """Encoder with a top-down path and three heads."""

    def __init__(self, config: UAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UAEConfig()
        w = config.width
        self.stem = nn.Sequential(_conv(2, w, stride=2), _Block(w))
        self.level4 = nn.Sequential(_conv(w, 2 * w, stride=2), _Block(2 * w), _Block(2 * w))
        self.level8 = nn.Sequential(_conv(2 * w, 3 * w, stride=2), _Block(3 * w), _Block(3 * w))
        self.join4 = nn.Sequential(_conv(5 * w, 2 * w, size=1), _Block(2 * w))
        self.join2 = nn.Sequential(_conv(3 * w, w, size=1), _Block(w))
        self.fine = nn.Conv3d(w, config.fine_dims, 1)
        self.coarse = nn.Conv3d(3 * w, config.coarse_dims, 1)
        self.semantic = nn.Conv3d(2 * w, config.semantic_dims, 1)

    def dims(self) -> tuple[int, int, int]:
        """Lengths of the fine, coarse and semantic vectors."""
        return self.config.fine_dims, self.config.coarse_dims, self.config.semantic_dims

    def forward(self, x: torch.Tensor) -> Maps:
        """Embed ``x [B, 2, K, J, I]`` (value in [0, 1], filled); sizes are multiples of 8."""
        at2 = self.stem(x)
        at4 = self.level4(at2)
        at8 = self.level8(at4)
        at4 = _joined(self.join4, at8, at4)
        at2 = _joined(self.join2, at4, at2)
        return Maps(self.fine(at2), self.coarse(at8), self.semantic(at4))


class _Block(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)[:2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)))


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm3d(outputs, momentum=MOMENTUM),
        nn.ReLU(inplace=True),
    )


def _joined(join: nn.Sequential, below: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """``join`` of the coarser level, upsampled, and the finer one. Its first convolution has size
    1, so the coarser share of it is computed before the upsampling, at an eighth of the cost."""
    mix, last = join
    assert isinstance(mix, nn.Sequential)
    conv, normalise, activate = mix
    assert isinstance(conv, nn.Conv3d)
    own = F.conv3d(beside, conv.weight[:, below.shape[1] :], conv.bias)
    lifted = _upsampled(F.conv3d(below, conv.weight[:, : below.shape[1]]))
    return last(activate(normalise(own + lifted)))


def fused(network: UAENetwork) -> UAENetwork:
    """A copy for inference with each normalisation, fixed by then, folded into its convolution."""
    copy = deepcopy(network).eval()
    for module in list(copy.modules()):
        if isinstance(module, nn.Sequential) and len(module) > 1:
            first, second = module[0], module[1]
            if isinstance(first, nn.Conv3d) and isinstance(second, nn.BatchNorm3d):
                module[0], module[1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return copy


def _upsampled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@dataclass(frozen=True, eq=False)
class Embedding:
    """The descriptors of a whole volume; `at` samples them.

    Attributes:
        fine, coarse, semantic: ``[D, K, J, I]`` at strides 2, 8 and 4 of the grid, half precision,
            not normalised.
        grid: isotropic, along the RAS axes, that the network saw.
        filled: ``[K, J, I]`` bool, cells of the fine head that lie in the image.
    """

    fine: torch.Tensor
    coarse: torch.Tensor
    semantic: torch.Tensor
    grid: Grid
    filled: torch.Tensor

    def at(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fine, coarse and semantic unit vectors ``[N, D]`` at RAS ``points [N, 3]``."""
        heads = (self.fine, self.coarse, self.semantic)
        found = [
            sample_channels(head.float(), transform.invert(self.affine(stride)), points).T
            for head, stride in zip(heads, STRIDES, strict=True)
        ]
        fine, coarse, semantic = (F.normalize(vectors, dim=1) for vectors in found)
        return fine, coarse, semantic

    def fine_map(self) -> FeatureMap:
        """The fine head, to be read where it is smooth."""
        return FeatureMap(self.fine.float(), self.affine(2))

    @property
    def spacing_mm(self) -> float:
        """Between cells of the fine head."""
        return 2 * float(np.linalg.norm(self.grid.ijk_to_ras[:3, 0]))

    def affine(self, stride: int) -> transform.Matrix:
        """From the index of a head's cells to RAS mm."""
        return self.grid.ijk_to_ras @ np.diag([stride, stride, stride, 1.0])


@torch.inference_mode()
def embed(
    network: UAENetwork,
    volume: Volume,
    *,
    half: bool = True,
    max_voxels: int = 20_000_000,
    margin_voxels: int = MARGIN,
) -> Embedding:
    """Describe every voxel of a volume.

    Args:
        network: in evaluation mode, on the volume's device.
        volume: of any contrast and grid, empty (its minimum) outside the image; or CT in
            Hounsfield units.
        half: compute in bfloat16.
        max_voxels: larger regions are embedded in tiles, which bounds the memory.
        margin_voxels: around a tile, a multiple of 8.

    Raises:
        InputError: the volume is constant.
    """
    scaled = rescaled(windowed(volume))
    box = _box(scaled, network.config.spacing_mm)
    smooth = scaled.smoothed(network.config.spacing_mm).array
    channels = torch.stack([smooth, (scaled.array > 0).float()])
    value, share = sample_channels(channels, volume.ras_to_ijk, box.points(volume.device))
    filled = share > 0.5
    seen = torch.where(filled, value.clamp_min(DIMMEST), 0)
    x = torch.stack([seen, filled.float()])
    heads = [
        seen.new_empty((dims, *(n // stride for n in box.shape)), dtype=torch.float16)
        for dims, stride in zip(network.dims(), STRIDES, strict=True)
    ]
    quick = fused(network)
    for core, tile in _tiles(box.shape, max_voxels, margin_voxels):
        part = x[(slice(None), *tile)][None].contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            maps = quick(part)
        for head, found, stride in zip(heads, maps, STRIDES, strict=True):
            inner = [
                slice((c.start - t.start) // stride, (c.stop - t.start) // stride)
                for c, t in zip(core, tile, strict=True)
            ]
            place = [slice(c.start // stride, c.stop // stride) for c in core]
            head[(slice(None), *place)] = found[(0, slice(None), *inner)]
    shown = filled & (gaussian(seen, 2.0) > DARKEST)  # no noise of the air around a head
    return Embedding(heads[0], heads[1], heads[2], box, shown[::2, ::2, ::2])


def _box(scaled: Volume, spacing_mm: float) -> Grid:
    """The grid along the RAS axes that holds what is not empty, in whole cells of every head."""
    filled = (scaled.array > 0).float()[None, None]
    blocks = F.max_pool3d(filled, BLOCK, ceil_mode=True)[0, 0].nonzero()  # far fewer than voxels
    last = torch.tensor(scaled.shape, device=blocks.device) - 1
    ends = torch.cartesian_prod(*[torch.tensor([0, BLOCK - 1])] * 3).to(blocks.device)
    corners = (BLOCK * blocks[:, None] + ends).minimum(last).flatten(0, 1)
    points = scaled.points_ras(corners.float()).cpu().numpy()
    return Grid.around(points, spacing_mm, 2 * spacing_mm, lattice_mm=COARSEST * spacing_mm)


def _tiles(
    shape: tuple[int, int, int], max_voxels: int, margin: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Regions that together fill ``shape``, each with the larger tile it is computed in."""

    def edges(counts: tuple[int, ...]) -> list[tuple[int, int]]:
        """Core and tile edge along each axis."""
        cores = [-(-n // (COARSEST * c)) * COARSEST for n, c in zip(shape, counts, strict=True)]
        return [(c, min(n, c + 2 * margin)) for n, c in zip(shape, cores, strict=True)]

    most = [min(12, n // COARSEST) for n in shape]
    work: dict[tuple[int, ...], tuple[int, int]] = {}
    for counts in product(*(range(1, n + 1) for n in most)):
        voxels = int(np.prod([tile for _, tile in edges(counts)]))
        work[counts] = (max(voxels, max_voxels), int(np.prod(counts)) * voxels)
    # The cheapest cut within the limit, or the one nearest to it.
    chosen = edges(min(work, key=lambda counts: work[counts]))
    cuts = [
        [(a, min(a + core, n)) for a in range(0, n, core)]
        for n, (core, _) in zip(shape, chosen, strict=True)
    ]
    for spans in product(*cuts):
        core = tuple(slice(a, b) for a, b in spans)
        tile = tuple(
            slice(max(0, a - margin), min(n, b + margin))
            for (a, b), n in zip(spans, shape, strict=True)
        )
        yield core, tile
