"""One 3D image of one real value per voxel, through SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..geometry import transform
from ..geometry.transform import Matrix
from .paths import itk_name
from .transforms import LPS_RAS, quiet

TRUNCATED = "the file is truncated; copy or export it again"
DAMAGED = "truncated, damaged or not of the type its name says; copy or export it again"


def image_of(path: Path, frame: int | None = None) -> sitk.Image:
    """Read a file; of a sequence of volumes the one with index ``frame``.

    Raises:
        InputError: unreadable, or no 3D image of one real value per voxel.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_name(path))
    try:
        with quiet():
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(DAMAGED) from error
    if frame is not None:
        image = _frame(image, frame)
    values = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() == 2:
        raise InputError("a 2D image; a 3D volume is needed")
    if values > 1:
        raise InputError(f"{values} values per voxel (colour or vectors); export a grey volume")
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError("complex values; export the magnitude image")
    size = list(image.GetSize())
    return image if len(size) == 3 else sitk.Extract(image, size[:3] + [0] * (len(size) - 3))


def _frame(image: sitk.Image, frame: int) -> sitk.Image:
    """One volume of a sequence: ITK makes an axis of frames that comes first into components."""
    if image.GetDimension() == 3:
        return sitk.VectorIndexSelectionCast(image, frame)
    size = list(image.GetSize())
    return sitk.Extract(image, size[:3] + [0] * (len(size) - 3), [0, 0, 0, frame])


def ijk_to_ras(image: sitk.Image) -> Matrix:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return LPS_RAS @ transform.from_parts(direction * image.GetSpacing(), image.GetOrigin())
