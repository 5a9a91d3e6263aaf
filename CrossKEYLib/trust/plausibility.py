"""Checks that the two images can be an MRI and an ultrasound. Only clear cases are refused.

No probe sweeps more than a part of one hemisphere, so an "ultrasound" of the size of a brain is
an MRI. A crop of an MRI is as small as an iUS, but it fills its box and has no speckle, whereas a
reconstructed iUS is a speckled fan or slab in an empty box. A pair counts as swapped only if both
differences are reversed.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError
from ..geometry.filters import gaussian
from ..geometry.intensity import rescaled
from ..geometry.volume import Grid, Volume

SMALLEST_IUS_ML = 5.0
LARGEST_IUS_ML = 800.0  # real sweeps cover 50 to 130 ml, simulated ones up to 350
SHOWN = 0.05  # of the intensity range; below lies the background of an image that has noise there
FULL_BOX = 0.95  # share of its box that a crop fills
FAN_BOX = 0.85  # a fan or slab fills less
SPECKLE_RATIO = 1.5  # how much more speckle the iUS of a swapped pair has; real ones 2.9 or more
WORKING_MM = 1.0
NEIGHBOURHOOD_MM = 3.0

SWAP = "exchange --mri and --ius if they are swapped"


def check_pair(fixed: Volume, moving: Volume) -> None:
    """Refuse a pair that cannot be an MRI and an iUS.

    Args:
        fixed: MRI, intensities as read.
        moving: iUS, intensities as read.

    Raises:
        InputError: too little ultrasound, an MRI given as ultrasound, or one image given twice.
    """
    ius = rescaled(moving)
    covered = filled_ml(ius)
    if covered < SMALLEST_IUS_ML:
        raise InputError(
            f"the ultrasound covers only {covered:.1f} ml; expected at least "
            f"{SMALLEST_IUS_ML:g} ml of brain; check that this is the reconstructed 3D volume"
        )
    if fixed.shape == moving.shape and torch.equal(fixed.array, moving.array):
        raise InputError("the same image is given as MRI and as ultrasound; give one of each")
    shown = filled_ml(ius, SHOWN)
    if shown > LARGEST_IUS_ML:
        raise InputError(
            f"the image given as ultrasound covers {shown:.0f} ml, more than any probe does "
            f"(at most {LARGEST_IUS_ML:g} ml): it looks like an MRI; {SWAP}"
        )
    # The MRI of a good pair is seldom small, so speckle is seldom measured.
    if filled_share(ius) > FULL_BOX:
        mri = rescaled(fixed)
        is_fan = filled_share(mri) < FAN_BOX and filled_ml(mri, SHOWN) < LARGEST_IUS_ML
        if is_fan and speckle(mri) > SPECKLE_RATIO * speckle(ius):
            raise InputError(
                "the image given as MRI is a speckled fan in an empty box, the one given as "
                f"ultrasound fills its box without speckle: they look swapped; {SWAP}"
            )


def filled_share(volume: Volume) -> float:
    """Share of the grid that is not empty, for a volume scaled to [0, 1]."""
    return float((volume.array > 0).float().mean())


def filled_ml(volume: Volume, above: float = 0.0) -> float:
    """Millilitres of samples greater than ``above``, for a volume scaled to [0, 1]."""
    voxel_mm3 = abs(float(np.linalg.det(volume.ijk_to_ras[:3, :3])))
    return float((volume.array > above).sum()) * voxel_mm3 / 1000


def speckle(volume: Volume) -> float:
    """Fine texture relative to local brightness, for a volume scaled to [0, 1].

    The local standard deviation (3 mm) of what varies within 1 mm, over the local mean; its median
    over everything filled. Fully developed speckle is multiplicative, so its value does not depend
    on gain. Zero where too little is filled.
    """
    spacing = max(WORKING_MM, float(volume.spacing_mm.min()))
    grid = Grid.along(volume, spacing, -spacing / 2)
    points = grid.points(volume.device)
    filled = volume.replaced((volume.array > 0).float()).sample(points) > 0.999
    array = volume.sample(points) * filled
    near = _local_mean(array, filled, WORKING_MM / spacing)
    wide = _local_mean(array, filled, NEIGHBOURHOOD_MM / spacing)
    fine = (array - near) * filled
    deviation = _local_mean(fine.square(), filled, NEIGHBOURHOOD_MM / spacing).sqrt()
    # Near the rim of the field of view the means rest on few samples.
    inner = gaussian(filled.float(), NEIGHBOURHOOD_MM / spacing) > 0.9
    ratio = (deviation / wide.clamp_min(1e-6))[inner & (wide > 0.02)]
    return float(ratio.median()) if len(ratio) else 0.0


def _local_mean(array: torch.Tensor, filled: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian mean over filled samples alone; ``array`` is zero elsewhere."""
    return gaussian(array, sigma) / gaussian(filled.float(), sigma).clamp_min(1e-3)
