"""Brain mask of an MRI of any contrast, whole or cropped, with or without skull.

A small 3D U-Net (Çiçek et al., MICCAI 2016) reads the image on a grid of about 4 mm. It was
trained on images whose contrast, surroundings and artefacts were drawn at random, after
SynthStrip (Hoopes et al., NeuroImage 260, 2022); see ``Resources/Models/README.md``.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from ..runtime.resources import resource
from .intensity import nonempty, thinned
from .transform import Matrix, from_parts
from .volume import Volume

WEIGHTS = "Models/brain-mask.pt"
CELL_MM = 4.0  # of the network's grid
MASK_MM = 2.0  # of the mask's grid
WIDTHS = (8, 16, 32, 64)  # channels of the four levels
STRIDE = 2 ** (len(WIDTHS) - 1)  # cells of the input per cell of the coarsest level
QUANTILES = 0.01, 0.99  # of the non-empty cells, scaled to 0 and 1
MOSTLY = 0.7  # of what an image shows: where so much is brain, all of it is
HALF = 0.5  # the same for a crop from inside a head, which leaves no air
CROP = 0.6  # of an image's cells above `BRIGHT`: no whole head fills its box so
BRIGHT = 0.12
CLOSING_MM = 12.0
SMALLEST_PART = 0.2  # of the largest connected part, below which a part is no brain


class BrainNet(nn.Module):
    """U-Net; ``[B, 2, K, J, I]`` (value in [0, 1], share of non-empty samples) to logits
    ``[B, K, J, I]``. K, J and I are multiples of `STRIDE`."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.first = nn.Sequential(_conv(2, widths[0]), _conv(widths[0], widths[0]))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b, 2), _conv(b, b)) for a, b in pairs)
        self.bottom = _conv(widths[-1], widths[-1])
        self.up = nn.ModuleList(_conv(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv3d(widths[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.first(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        y = self.bottom(levels.pop())
        for up, skipped in zip(self.up, reversed(levels), strict=True):
            y = up(torch.cat([F.interpolate(y, scale_factor=2.0), skipped], 1))
        return self.head(y)[:, 0]


def brain_mask(volume: Volume) -> Volume:
    """Brain with its fluid, without skull: 0 or 1 on a grid of about 2 mm over the volume's box.

    Where most of what the image shows is brain, all of it is: a brain without skull, its ventricles
    included, and a crop from inside a head. The mask is empty where the network sees no brain.

    Raises:
        InputError: the volume is constant.
    """
    logits, value = brain_logits(volume)
    shape = _cells(logits, MASK_MM)
    fine = F.interpolate(logits.array[None, None], shape, mode="trilinear")[0, 0]
    solid = _parts(fine.cpu().numpy() > 0)
    filled = averaged(near_ras(_filled(volume)), MASK_MM, shape).array.cpu().numpy() > 0.5
    bright = float((value.array > BRIGHT).float().mean())
    if (solid & filled).sum() >= (HALF if bright > CROP else MOSTLY) * filled.sum():
        solid = _closed(filled)
    mask = torch.as_tensor(solid, dtype=torch.float32, device=volume.device)
    return Volume(mask, cell_affine(logits, shape))


@torch.inference_mode()
def brain_logits(volume: Volume) -> tuple[Volume, Volume]:
    """Logits of the network, and the values that it saw, on its own grid.

    Raises:
        InputError: the volume is constant.
    """
    value, share = network_input(volume)
    k, j, i = value.shape
    # Two cells at least on the coarsest level: a single one has no variance to normalise by.
    wanted = [max(2, -(-size // STRIDE)) * STRIDE for size in (i, j, k)]
    pad = [n for size, to in zip((i, j, k), wanted, strict=True) for n in (0, to - size)]
    x = F.pad(torch.stack([value.array, share.array])[None], pad)
    logits = _bundled(str(volume.device))(x)[0, :k, :j, :i]
    return value.replaced(logits), value


def network_input(volume: Volume) -> tuple[Volume, Volume]:
    """Value in [0, 1] and share of non-empty samples, averaged over cells of about 4 mm.

    The cells run along the volume's own axes, flipped and permuted to lie near R, A and S. Empty
    is what equals the volume's minimum.

    Raises:
        InputError: the volume is constant.
    """
    near, filled = near_ras(volume), near_ras(_filled(volume))
    share = averaged(filled, CELL_MM)
    above = (near.array - near.array.amin()) * filled.array
    total = averaged(near.replaced(above), CELL_MM).array
    value = total / share.array.clamp_min(1e-3)
    known = share.array >= 0.5 * share.array.amax()
    q = torch.tensor(QUANTILES, device=volume.device)
    low, high = torch.quantile(thinned(value[known]), q).tolist()
    scaled = ((value - low) / max(high - low, 1e-12)).clamp(0, 1) * (share.array > 0)
    return share.replaced(scaled), share


def near_ras(volume: Volume) -> Volume:
    """The same samples with the axes i, j, k flipped and permuted to lie near R, A, S."""
    axes = volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    order = max(permutations(range(3)), key=lambda o: np.abs(axes[range(3), o]).sum())
    array = volume.array.permute([2 - n for n in reversed(order)])
    matrix = from_parts(volume.ijk_to_ras[:3, order], volume.ijk_to_ras[:3, 3])
    for n in range(3):
        if matrix[n, n] < 0:
            array = array.flip(2 - n)
            matrix[:3, 3] += matrix[:3, n] * (array.shape[2 - n] - 1)
            matrix[:3, n] *= -1
    return Volume(array, matrix)


def averaged(volume: Volume, cell_mm: float, shape: list[int] | None = None) -> Volume:
    """Means over cells of about ``cell_mm``, or ``shape`` of them, that fill the volume's box;
    where the samples lie further apart than that, interpolated."""
    shape = shape or _cells(volume, cell_mm)
    coarse = [min(a, b) for a, b in zip(shape, volume.shape, strict=True)]
    x = F.interpolate(volume.array[None, None], coarse, mode="area")
    x = F.interpolate(x, shape, mode="trilinear")
    return Volume(x[0, 0], cell_affine(volume, shape))


def _cells(volume: Volume, cell_mm: float) -> list[int]:
    """Cells of about this size along k, j, i."""
    edges = np.array(volume.shape) * volume.spacing_mm[::-1]
    return [max(1, round(edge / cell_mm)) for edge in edges]


def cell_affine(volume: Volume, shape: list[int]) -> Matrix:
    """Index to world of ``shape`` cells (k, j, i) that fill the box of the volume's samples."""
    steps = np.array(volume.shape[::-1]) / np.array(shape[::-1])
    return volume.ijk_to_ras @ from_parts(np.diag(steps), (steps - 1) / 2)


def _filled(volume: Volume) -> Volume:
    """1 where a sample differs from the volume's minimum, 0 where it is empty."""
    return volume.replaced(nonempty(volume).float())


def _closed(mask: np.ndarray) -> np.ndarray:
    """Closing by `CLOSING_MM`, so that sulci and ventricles belong to the brain."""
    reach = round(CLOSING_MM / MASK_MM)
    grown = np.asarray(ndimage.distance_transform_edt(~np.pad(mask, reach))) <= reach
    closed = np.asarray(ndimage.distance_transform_edt(grown)) > reach
    return np.asarray(ndimage.binary_fill_holes(closed[(slice(reach, -reach),) * 3] | mask))


def _parts(mask: np.ndarray) -> np.ndarray:
    """The large connected parts, their holes filled."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= max(1, SMALLEST_PART * sizes.max())
    return np.asarray(ndimage.binary_fill_holes(kept[labels]))


@lru_cache(maxsize=2)
def _bundled(device: str) -> BrainNet:
    return load(resource(WEIGHTS), device)


def load(path: Path, device: str = "cpu") -> BrainNet:
    """A trained network."""
    network = BrainNet()
    stored = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict({name: weight.float() for name, weight in stored.items()})
    return network.to(device).eval()


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(0.1),
    )
