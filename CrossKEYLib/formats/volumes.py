"""Volumes on disk: NIfTI, NRRD, MetaImage and DICOM, each by its own reader, in RAS mm.

Everywhere else the world is RAS. DICOM, NRRD and MetaImage are LPS or say what they are; NIfTI is
RAS.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError, InputWarning
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from .atomic import whole
from .options import ReadOptions
from .paths import itk_name, printable
from .samples import checked, checked_mask
from .transforms import LPS_RAS, quiet
from .units import check_spacing

NIFTI = (".nii", ".nii.gz")
TEXT_HEADER = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM = (".dcm", ".ima")
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")  # one file each, so that it can appear whole


def read_volume(path: str | os.PathLike[str], options: ReadOptions | None = None) -> Volume:
    """Read a NIfTI, NRRD, MetaImage or DICOM file, or a folder with DICOM slices.

    Any orientation, spacing, handedness and real sample type; the geometry is kept exactly.

    Args:
        path: file or folder.
        options: choices among several series, frames or orientations.

    Raises:
        InputError: anything that is not one sound 3D image; the line says what and what to do.

    Warns:
        InputWarning: a choice or a correction that a person should know of.
    """
    return _read(Path(path), options or ReadOptions(), checked)


def read_mask(path: str | os.PathLike[str]) -> Volume:
    """Read a label volume, of any of these formats, as 1 where it is above zero and 0 elsewhere.

    Raises:
        InputError: it cannot be read, or marks nothing.

    Warns:
        InputWarning: as `read_volume`.
    """
    return _read(Path(path), ReadOptions(), checked_mask)


def _read(
    path: Path, options: ReadOptions, accepted: Callable[[np.ndarray], torch.Tensor]
) -> Volume:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if not path.exists():
                raise InputError("no such file or folder; check the path")
            samples, matrix = _load(path, options)
            check_spacing(np.linalg.norm(matrix[:3, :3], axis=0))
            volume = Volume(accepted(samples), matrix)
        except InputError as error:
            raise InputError(f"{printable(path)}: {error}") from error
        except ModuleNotFoundError as error:  # inside an application with a Python of its own
            need = f"reading it needs the Python package {error.name}; install that with pip"
            raise InputError(f"{printable(path)}: {need}") from error
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{printable(path)}: cannot be read ({reason})") from error
    for warning in caught:
        told = issubclass(warning.category, InputWarning)
        text = f"{printable(path)}: {warning.message}" if told else str(warning.message)
        warnings.warn(text, warning.category, stacklevel=3)
    return volume


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write float32 samples as ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``, whole or not at all.

    Raises:
        InputError: another extension, a sheared volume as NIfTI, or `atomic.whole` failed.
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
        try:
            name = itk_name(temporary)
        except InputError as error:
            raise InputError(f"cannot write {printable(path)}: {error}") from None
        temporary.touch()  # Python names the reason (permission, folder) where ITK does not
        try:
            with quiet():
                sitk.WriteImage(image, name, path.suffix.lower() != ".nii")
            # ITK may report success for a file that the disk did not hold in full
            written = _load(temporary, ReadOptions())[0]
            complete = np.array_equal(written, sitk.GetArrayViewFromImage(image), True)
        except (RuntimeError, InputError):
            complete = False
        if not complete:
            raise InputError(
                f"cannot write {path}: the data did not fit (disk full, quota or size limit); "
                "free some space and run again"
            )


def _load(path: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """Samples ``[K, J, I]`` and index-to-RAS matrix; each reader is imported when needed."""
    name = path.name.lower()
    if path.is_dir():
        from .dicom import read_dicom_folder

        return read_dicom_folder(path, options)
    if path.stat().st_size == 0:
        raise InputError("the file is empty; copy or export it again")
    if name.endswith(NIFTI):
        from .nifti import read_nifti

        return read_nifti(path, options)
    if name.endswith(TEXT_HEADER):
        from .text_headers import read_text_header_image

        return read_text_header_image(path, options)
    from .dicom import is_dicom, read_dicom_file

    if name.endswith(DICOM) or is_dicom(path):
        return read_dicom_file(path, options)
    expected = ", ".join((*NIFTI, *TEXT_HEADER, *DICOM))
    raise InputError(f"unknown image type; expected {expected} or a DICOM folder")


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
