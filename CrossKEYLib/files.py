"""Volumes and transforms on disk: the only place where LPS, the world of ITK files, exists.

Everywhere else the world is RAS mm. DICOM, NRRD, MetaImage and ITK transform files are LPS;
NIfTI is RAS, but SimpleITK hands it over as LPS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from . import headers, transform
from .dicom_series import read_series
from .errors import InputError
from .transform import Matrix
from .volume import Volume
from .writing import whole

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse

NIFTI = (".nii", ".nii.gz")
TEXT_HEADER = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM = (".dcm", ".ima")
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")  # one file each, so that it can appear whole
TRANSFORMS = (".tfm", ".txt", ".h5", ".hdf5", ".mat")

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
        headers.check_spacing(np.linalg.norm(matrix[:3, :3], axis=0))
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
            with _quiet():
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


def write_transform(matrix: Matrix, path: str | os.PathLike[str]) -> None:
    """Write ``T_fixed_moving`` (4x4, RAS mm) as an ITK text file that Slicer reads.

    Loaded by Slicer and put on the moving node it moves that onto the fixed one: ITK files hold
    the resampling direction, so the file has the inverse, in LPS, with full double precision.

    Raises:
        InputError: not an invertible 4x4 matrix, another extension, or `writing.whole` failed.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tfm", ".txt"):
        raise InputError(f"cannot write {path}: expected a transform name ending in .tfm")
    matrix = _checked(np.asarray(matrix, float), path)
    stored = LPS_RAS @ transform.invert(matrix) @ LPS_RAS
    numbers = [*stored[:3, :3].ravel(), *stored[:3, 3]]
    text = (
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(format(float(n), '.17g') for n in numbers)}\n"
        "FixedParameters: 0 0 0\n"
    )
    with whole(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def read_transform(path: str | os.PathLike[str]) -> Matrix:
    """Read any linear ITK transform file as ``T_fixed_moving``, 4x4 float64, RAS mm.

    Raises:
        InputError: missing, unreadable, not 3D, not linear or not invertible.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such transform file; check the path")
    if path.suffix.lower() not in TRANSFORMS:
        raise InputError(f"{path}: expected a transform file ending in {', '.join(TRANSFORMS)}")
    try:
        with _quiet():
            stored = sitk.ReadTransform(str(path))
    except RuntimeError:
        raise InputError(f"{path}: no readable ITK transform; save it again as .tfm") from None
    if stored.GetDimension() != 3 or not stored.IsLinear():
        raise InputError(f"{path}: expected a rigid or affine 3D transform; save a linear one")
    origin = np.array(stored.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(stored.TransformPoint(axis)) - origin for axis in np.eye(3).tolist()]
    matrix = _checked(transform.from_parts(np.stack(columns, 1), origin), path)
    return LPS_RAS @ transform.invert(matrix) @ LPS_RAS


def from_lps(points: torch.Tensor) -> torch.Tensor:
    """RAS of LPS points ``[..., 3]`` in mm."""
    return transform.apply(LPS_RAS, points)


def _load(path: Path) -> tuple[sitk.Image, Matrix]:
    """The image, three-dimensional, and its index-to-RAS matrix."""
    name = path.name.lower()
    if path.is_dir():
        with _quiet():
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
        with headers.unpacked(path) as plain:
            header = headers.read_nifti_header(plain)
            image = _read_image(plain)
        return image, header.ijk_to_ras(_ijk_to_ras(image))
    if name.endswith(TEXT_HEADER):
        headers.check_text_header(path)
    image = _read_image(path)
    return image, _ijk_to_ras(image)


def _read_image(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _quiet():
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
    headers.check_finite(samples)
    array = torch.from_numpy(samples)
    low, high = array.aminmax()
    if low == high:
        what = "all voxels are zero" if low == 0 else f"all voxels have one value ({float(low):g})"
        raise InputError(f"{what}: it holds no image; export it again")
    return array


def _checked(matrix: Matrix, path: Path) -> Matrix:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: the transform is not a finite 4x4 matrix")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise InputError(f"{path}: the transform is singular, it cannot be inverted; make it anew")
    return matrix


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's C++ warnings off stderr, where only our own line belongs.

    Some of its libraries bypass its switch and print directly, hence the detour of descriptor 2
    for the moment of the call. NIfTI shear is let through: `headers` has the exact matrix.
    """
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    permissive = os.environ.get("ITK_NIFTI_SFORM_PERMISSIVE")
    os.environ["ITK_NIFTI_SFORM_PERMISSIVE"] = "1"
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all, as in a windowed application
        kept = None
    if kept is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)
        if permissive is None:
            del os.environ["ITK_NIFTI_SFORM_PERMISSIVE"]
        else:
            os.environ["ITK_NIFTI_SFORM_PERMISSIVE"] = permissive
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


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
