"""MIND-SSC, the self-similarity context: features without training, alike in all modalities.

Heinrich, Jenkinson, Papiez, Brady, Schnabel, MICCAI 2013: at every voxel twelve distances between
neighbouring patches, relative to their mean, describe the local shape and not the intensities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..geometry.filters import box_mean

_SIX = ((0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0))


def self_similarity(
    image: torch.Tensor, radius_voxels: int = 1, reach_voxels: int = 1
) -> torch.Tensor:
    """MIND-SSC ``[12, K, J, I]`` of an image ``[K, J, I]``, each in (0, 1].

    Args:
        image: on an isotropic grid.
        radius_voxels: of a patch.
        reach_voxels: between a voxel and its neighbours ("dilation").
    """
    reach = reach_voxels
    padded = F.pad(image[None, None], (reach,) * 6, mode="replicate")[0, 0]
    k, j, i = image.shape
    around = [
        padded[
            reach * (1 + a) : reach * (1 + a) + k,
            reach * (1 + b) : reach * (1 + b) + j,
            reach * (1 + c) : reach * (1 + c) + i,
        ]
        for a, b, c in _SIX
    ]
    # Of the fifteen pairs, the three that lie opposite each other are left out.
    pairs = [
        (around[m] - around[n]).square()
        for m in range(6)
        for n in range(m + 1, 6)
        if m // 2 != n // 2
    ]
    distance = box_mean(torch.stack(pairs), 2 * radius_voxels + 1)
    distance = distance - distance.amin(0)
    variance = distance.mean(0)
    typical = variance.mean()
    variance = variance.clamp(1e-3 * float(typical), 1e3 * float(typical)).clamp_min(1e-12)
    return torch.exp(-distance / variance)
