"""Volumes and transforms on disk: the only place where LPS, the world of ITK files, exists.

Everywhere else the world is RAS mm. DICOM, NRRD, MetaImage and ITK transform files are LPS;
NIfTI is RAS, but SimpleITK hands it over as LPS.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError
from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from . import nifti
from .atomic import whole
from .dicom import read_series
from .transforms import LPS_RAS, quiet

NIFTI = (".nii", ".nii.gz")
TEXT_HEADER = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM = (".dcm", ".ima")
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")  # one file each, so that it can appear whole

MIN_VOXELS = 8  # along each axis; fewer hold no 3D structure


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a NIfTI, NRRD, MetaImage or DICOM file, or a folder with one DICOM series.

    Any orientation, spacing, handedness and real sample type; the geometry is kept exactly.

    Raises:
        InputError: anything that is not one sound 3D image; the line says what and what to do.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError("no such file or folder; check the path")
        image, matrix = _load(path)
        nifti.check_spacing(np.linalg.norm(matrix[:3, :3], axis=0))
        return Volume(_samples(image), matrix)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write float32 samples as ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``, whole or not at all.

    Raises:
        InputError: another extension, a sheared volume as NIfTI, or `writing.whole` failed.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise InputError(f"cannot write {path}: expected a name ending in {', '.join(WRITABLE)}")
    matrix = LPS_RAS @ volume.ijk_to_ras
    direction = matrix[:3, :3] / volume.spacing_mm
    straight = np.allclose(direction.T @ direction, np.eye(3), atol=1e-4)
    if path.name.lower().endswith(NIFTI) and not straight:
        raise InputError(f"cannot write {path}: ITK's NIfTI cannot hold shear; write .nrrd instead")
    image = sitk.GetImageFromArray(volume.array.cpu().numpy())
    image.SetSpacing(volume.spacing_mm.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    with whole(path) as temporary:
        temporary.touch()  # Python names the reason (permission, folder) where ITK does not
        try:
            with quiet():
                sitk.WriteImage(image, str(temporary), path.suffix.lower() != ".nii")
            # ITK may report success for a file that the disk did not hold in full
            written = _load(temporary)[0]
            complete = np.array_equal(
                sitk.GetArrayViewFromImage(written), sitk.GetArrayViewFromImage(image), True
            )
        except (RuntimeError, InputError):
            complete = False
        if not complete:
            raise InputError(
                f"cannot write {path}: the data did not fit (disk full, quota or size limit); "
                "free some space and run again"
            )


def _load(path: Path) -> tuple[sitk.Image, Matrix]:
    """The image, three-dimensional, and its index-to-RAS matrix."""
    name = path.name.lower()
    if path.is_dir():
        with quiet():
            image = read_series(path)
        _check_kind(image.GetSize(), image.GetNumberOfComponentsPerPixel(), image.GetPixelIDValue())
        image = _volume_of(image)
        return image, _ijk_to_ras(image)
    if not name.endswith((*NIFTI, *TEXT_HEADER, *DICOM)):
        expected = ", ".join((*NIFTI, *TEXT_HEADER, *DICOM))
        raise InputError(f"unknown image type; expected {expected} or a DICOM folder")
    if path.stat().st_size == 0:
        raise InputError("the file is empty; copy or export it again")
    if name.endswith(NIFTI):
        with nifti.unpacked(path) as plain:
            header = nifti.read_nifti_header(plain)
            image = _read_image(plain)
        return image, header.ijk_to_ras(_ijk_to_ras(image))
    if name.endswith(TEXT_HEADER):
        nifti.check_text_header(path)
    image = _read_image(path)
    return image, _ijk_to_ras(image)


def _read_image(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
            _check_kind(reader.GetSize(), reader.GetNumberOfComponents(), reader.GetPixelIDValue())
            return _volume_of(reader.Execute())
    except RuntimeError as error:
        if "direction" in str(error):
            reason = "its orientation is singular; export it again"
        elif "spacing" in str(error):
            reason = "its voxel spacing is zero; export it again"
        else:
            reason = "truncated, damaged or not of the type its name says; copy or export it again"
        raise InputError(reason) from error


def _check_kind(size: tuple[int, ...], values: int, pixel_id: int) -> None:
    """Refuse, from the header alone, what is not one 3D image of one real value per voxel."""
    if len(size) == 2:
        raise InputError("a 2D image; a 3D volume is needed")
    frames = int(np.prod(size[3:]))
    if frames > 1:
        raise InputError(f"a series of {frames} volumes (4D); export one of them as a 3D volume")
    if values > 1:
        raise InputError(f"{values} values per voxel (colour or vectors); export a grey volume")
    if "complex" in sitk.GetPixelIDValueAsString(pixel_id):
        raise InputError("complex values; export the magnitude image")
    if min(size[:3]) < MIN_VOXELS:
        raise InputError(
            f"only {' x '.join(map(str, size[:3]))} voxels; expected a 3D volume of at least "
            f"{MIN_VOXELS} along each axis (for DICOM give the folder that holds all slices)"
        )


def _volume_of(image: sitk.Image) -> sitk.Image:
    """Drop trailing axes of length one."""
    size = list(image.GetSize())
    return image if len(size) == 3 else sitk.Extract(image, size[:3] + [0] * (len(size) - 3))


def _ijk_to_ras(image: sitk.Image) -> Matrix:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return LPS_RAS @ transform.from_parts(direction * image.GetSpacing(), image.GetOrigin())


def _samples(image: sitk.Image) -> torch.Tensor:
    """Samples as float32 ``[K, J, I]``, checked to hold an image."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, refused below
        samples = sitk.GetArrayViewFromImage(image).astype(np.float32)
    nifti.check_finite(samples)
    array = torch.from_numpy(samples)
    low, high = array.aminmax()
    if low == high:
        what = "all voxels are zero" if low == 0 else f"all voxels have one value ({float(low):g})"
        raise InputError(f"{what}: it holds no image; export it again")
    return array


def read_folder(folder: Path) -> list[Volume]:
    """All volumes of a folder, by name.

    Raises:
        InputError: no folder, none in it, or one is unusable.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the path")
    found = sorted(p for p in folder.iterdir() if p.name.lower().endswith(NIFTI + TEXT_HEADER))
    if not found:
        raise InputError(f"{folder}: holds no volumes; expected files ending in .nii.gz")
    return [read_volume(path) for path in found]
