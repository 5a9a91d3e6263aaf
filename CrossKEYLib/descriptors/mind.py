"""MIND-SSC, the self-similarity context: features without training, alike in all modalities.

Heinrich, Jenkinson, Papiez, Brady, Schnabel, MICCAI 2013: at every voxel twelve distances between
neighbouring patches, relative to their mean, describe the local shape and not the intensities.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..geometry.filters import patch_means

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
    # The image is continued beyond its borders by replication.
    pad = radius_voxels + reach_voxels
    padded = F.pad(image[None, None], (pad,) * 6, mode="replicate")[0, 0]
    size = [n + 2 * radius_voxels for n in image.shape]
    around = [
        padded.narrow(0, reach_voxels * (1 + a), size[0])
        .narrow(1, reach_voxels * (1 + b), size[1])
        .narrow(2, reach_voxels * (1 + c), size[2])
        for a, b, c in _SIX
    ]
    # Of the fifteen pairs, the three that lie opposite each other are left out. One pair after the
    # other, since one volume fits into a processor's cache and twelve do not.
    distance = torch.stack(
        [
            patch_means((around[m] - around[n]).square_(), 2 * radius_voxels + 1)
            for m in range(6)
            for n in range(m + 1, 6)
            if m // 2 != n // 2
        ]
    )
    distance -= distance.amin(0)
    variance = distance.mean(0)
    typical = float(variance.mean())
    variance = variance.clamp(1e-3 * typical, 1e3 * typical).clamp_min_(1e-12)
    return distance.div_(variance).neg_().exp_()
