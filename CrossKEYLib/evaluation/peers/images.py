"""Conversion of volumes to ITK images (LPS mm) and back, and the field of view as a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from ...errors import InputError
from ...formats.transforms import LPS_RAS
from ...geometry import transform
from ...geometry.intensity import rescaled
from ...geometry.transform import Matrix
from ...geometry.volume import Grid, Volume

RIM_MM = 1.0  # kept off the border of the field of view, where samples mix with the empty outside


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position of an image with perpendicular axes, in ITK's terms.

    Attributes:
        spacing: (i, j, k) mm.
        origin: LPS mm.
        direction: 3x3, columns = directions of i, j, k in LPS.
    """

    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray

    @classmethod
    def of(cls, volume: Volume) -> Geometry:
        matrix = LPS_RAS @ volume.ijk_to_ras
        return cls(volume.spacing_mm, matrix[:3, 3], matrix[:3, :3] / volume.spacing_mm)


@dataclass(frozen=True, eq=False)
class Pair:
    """The input of every intensity-based method; both images are scaled to [0, 1].

    Attributes:
        mri, ius: volumes with perpendicular axes, on the CPU.
        mask: the field of view of the iUS on its own grid, 0 or 1.
        centre_ras: ``[3]`` middle of the field of view, RAS mm.
    """

    mri: Volume
    ius: Volume
    mask: Volume
    centre_ras: np.ndarray

    @classmethod
    def of(cls, fixed: Volume, moving: Volume) -> Pair:
        """From MRI and iUS as read.

        Raises:
            InputError: a constant image, or next to no field of view.
        """
        mri, ius = (_straight(rescaled(volume.to("cpu"))) for volume in (fixed, moving))
        mask = field_of_view(ius, RIM_MM)
        inside = (mask.array > 0).nonzero()
        if len(inside) == 0:
            raise InputError("the ultrasound's field of view is too small to be compared")
        centre = ius.points_ras(inside.float()).double().mean(0).numpy()
        return cls(mri, ius, mask, centre)


def field_of_view(ius: Volume, rim_mm: float) -> Volume:
    """1 in the filled part of an iUS, ``rim_mm`` off its border, else 0."""
    filled = np.pad(ius.array.cpu().numpy() > 0, 1)  # the border of the box counts as a border
    away = np.asarray(ndimage.distance_transform_edt(filled, sampling=ius.spacing_mm[::-1]))
    inside = away[1:-1, 1:-1, 1:-1] > rim_mm
    return ius.replaced(torch.as_tensor(inside, dtype=torch.float32, device=ius.device))


def to_sitk(volume: Volume) -> sitk.Image:
    """A volume with perpendicular axes as a float32 SimpleITK image."""
    image = sitk.GetImageFromArray(volume.array.numpy())
    place = Geometry.of(volume)
    image.SetSpacing(place.spacing.tolist())
    image.SetOrigin(place.origin.tolist())
    image.SetDirection(place.direction.ravel().tolist())
    return image


def from_itk(rotation: np.ndarray, offset: np.ndarray) -> Matrix:
    """``T_fixed_moving`` (4x4, RAS mm) from ITK's map of points, iUS to MRI in LPS mm.

    The iUS is what ITK calls the fixed image (its mask says where to compare), and ITK's
    transforms map points of that image to the other one: our direction already.
    """
    return LPS_RAS @ transform.from_parts(rotation, offset) @ LPS_RAS


def _straight(volume: Volume) -> Volume:
    """ITK does not support shear; a sheared volume is resampled onto perpendicular axes."""
    axes = volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        return volume
    return volume.resample(Grid.around(volume.corners_ras(), float(volume.spacing_mm.min())))
