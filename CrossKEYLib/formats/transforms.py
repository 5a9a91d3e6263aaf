"""Transforms on disk: ITK files, which are LPS, to RAS mm and back."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError
from ..geometry import transform
from ..geometry.transform import Matrix
from .atomic import whole
from .paths import itk_name, printable

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse
TRANSFORMS = (".tfm", ".txt", ".h5", ".hdf5", ".mat")


def write_transform(matrix: Matrix, path: str | os.PathLike[str]) -> None:
    """Write ``T_fixed_moving`` (4x4, RAS mm) as an ITK text file that Slicer reads.

    Loaded by Slicer and put on the moving node it moves that onto the fixed one: ITK files hold
    the resampling direction, so the file has the inverse, in LPS, with full double precision.

    Raises:
        InputError: not an invertible 4x4 matrix, another extension, or `atomic.whole` failed.
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
        raise InputError(f"{printable(path)}: no such transform file; check the path")
    if path.suffix.lower() not in TRANSFORMS:
        raise InputError(f"{path}: expected a transform file ending in {', '.join(TRANSFORMS)}")
    try:
        name = itk_name(path)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from None
    try:
        with quiet():
            stored = sitk.ReadTransform(name)
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


def _checked(matrix: Matrix, path: Path) -> Matrix:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: the transform is not a finite 4x4 matrix")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise InputError(f"{path}: the transform is singular, it cannot be inverted; make it anew")
    return matrix


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep ITK's C++ warnings off stderr, where only our own line belongs.

    Some of its libraries bypass its switch and print directly, hence the detour of descriptor 2
    for the moment of the call. NIfTI shear is let through: `nifti` has the exact matrix.
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
