"""A CT-like volume from the MRI of a head, for training and tests without real CT.

Air, scalp, bone, brain and fluid get Hounsfield units, with the blur and noise of a scanner. In MRI
both bone and the air of the sinuses are dark, so the sinuses become bone. The brain gets the faint
contrast that it has in CT.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from ..errors import InputError
from ..geometry.filters import gaussian
from ..geometry.intensity import rescaled
from ..geometry.volume import Grid, Volume
from .anatomy import Anatomy, read_anatomy

AIR_HU, FAT_HU, MUSCLE_HU, TISSUE_HU, FLUID_HU = -1000.0, -80.0, 50.0, 34.0, 6.0
TISSUE_RANGE_HU = 8.0  # between the darkest and brightest tissue of the brain
HEAD = 0.1  # of the scaled intensity; noise of the air around a head is below it
DARK = 0.22  # likewise; bone is
FAT = 0.6  # likewise; bright scalp is
CLOSING_MM = 10.0  # nostrils and ear canals belong to the head
THICKEST_MM = 14.0  # of bone around the brain
SKIN_MM = 4.0  # where the head fades into the air it is dark too
# What differs from scanner to scanner and head to head is drawn between these.
BONE_HU, BLUR_MM, NOISE_HU = (600.0, 1300.0), (0.4, 0.9), (3.0, 10.0)


def pseudo_ct(
    mri: Volume,
    generator: torch.Generator,
    anatomy: Anatomy | None = None,
) -> Volume:
    """Hounsfield units on the MRI's own grid.

    Args:
        mri: a whole head, with its skull; T1 with or without contrast agent.
        generator: CPU generator, the only source of chance.
        anatomy: of the MRI, where it is known already.

    Raises:
        InputError: no brain is found, or the MRI shows no skull.
    """
    anatomy, intensity, grid = anatomy or read_anatomy([mri]), rescaled(mri).array, Grid.of(mri)
    sheets, fluid = (
        Volume(part, anatomy.ijk_to_ras).resample(grid).array for part in anatomy.maps[:2]
    )
    brain = anatomy.brain.resample(grid).array > 0.5
    spacing = mri.spacing_mm[::-1]
    covered = brain.cpu().numpy()
    head = _solid((gaussian(intensity, 1.0) > HEAD).cpu().numpy() | covered, spacing)
    around = _depth(~covered, spacing)
    dark = intensity.cpu().numpy() < DARK
    deep = _depth(head, spacing) > SKIN_MM
    bone = deep & ~covered & dark & (around < THICKEST_MM)
    if bone.sum() < 0.02 * head.sum():
        raise InputError("the MRI shows no skull: a CT is made from a whole head, not stripped")
    head, bone = (torch.from_numpy(mask).to(intensity.device) for mask in (head, bone))
    bone_hu, blur_mm, noise_hu = (
        low + (high - low) * float(torch.rand((), generator=generator))
        for low, high in (BONE_HU, BLUR_MM, NOISE_HU)
    )
    wet = (0.6 * sheets + fluid).clamp(0, 1)
    tissue = TISSUE_HU - TISSUE_RANGE_HU * (intensity - 0.5)  # white matter is the darker one
    inside = tissue + wet * (FLUID_HU - tissue)
    outside = torch.where(intensity > FAT, FAT_HU, MUSCLE_HU)
    ct = torch.where(brain, inside, torch.where(head, outside, AIR_HU))
    ct = torch.where(bone, bone_hu, ct)
    ct = gaussian(ct, [blur_mm / float(s) for s in spacing])
    noise = torch.randn(ct.shape, generator=generator).to(ct.device)
    return mri.replaced(ct + noise_hu * noise)


def _depth(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm of every voxel of a mask to the nearest one outside of it."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def _solid(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Closed, without holes, and its largest part alone."""
    margin = int(np.ceil(CLOSING_MM / spacing.min()))
    wide = np.pad(mask, margin)
    grown = _depth(~wide, spacing) <= CLOSING_MM / 2
    closed = _depth(grown, spacing) > CLOSING_MM / 2
    filled = ndimage.binary_fill_holes(closed[(slice(margin, -margin),) * 3] | mask)
    parts, _ = ndimage.label(filled)  # type: ignore[misc]
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())
