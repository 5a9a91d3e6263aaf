"""Where DICOM slices and frames lie: LPS mm from what they state, with nothing assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..errors import InputError
from ..geometry import transform
from ..geometry.transform import Matrix

CINE = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.3.1")
STILL = ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.6.1")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
UNEVEN = (
    "its DICOM slices are not evenly spaced (some are missing or doubled); export the series again"
)


@dataclass(frozen=True)
class Plane:
    """One slice.

    Attributes:
        position: LPS mm of its first sample, ``[3]``.
        rows: LPS directions of growing column and row index, ``[2, 3]``, unit length.
        spacing: mm between columns and between rows, ``[2]``.
    """

    position: np.ndarray
    rows: np.ndarray
    spacing: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.rows)


def check_sop_class(header: Dataset) -> None:
    """Refuse kinds of DICOM that are no volume.

    Raises:
        InputError: a cine clip, a still ultrasound or a picture of a screen.
    """
    kind = str(header.get("SOPClassUID", ""))
    if kind in CINE:
        frames = int(header.get("NumberOfFrames", 1) or 1)
        raise InputError(
            f"an ultrasound cine clip of {frames} frames (2D and time), not a volume; "
            "export the reconstructed 3D volume"
        )
    if kind in STILL:
        raise InputError("a 2D ultrasound image, not a volume; export the reconstructed 3D volume")
    if kind == SECONDARY_CAPTURE or kind.startswith(SECONDARY_CAPTURE + "."):
        raise InputError(
            "a secondary capture (a picture of a screen), which states no geometry; "
            "export the original images"
        )


def plane_of(header: Dataset) -> Plane:
    """The plane of a slice from its own header.

    Raises:
        InputError: position, orientation or spacing is missing or no number.
    """
    return Plane(
        *stated(
            header.get("ImagePositionPatient"),
            header.get("ImageOrientationPatient"),
            header.get("PixelSpacing"),
        )
    )


def stated(position: Any, orientation: Any, spacing: Any) -> tuple[np.ndarray, ...]:
    """`Plane`'s three attributes from what a header states.

    Raises:
        InputError: one is missing or unusable; the line names it.
    """
    at = _numbers(position, 3, "position (Image Position)")
    axes = _numbers(orientation, 6, "orientation (Image Orientation)").reshape(2, 3)
    row_mm, column_mm = _numbers(spacing, 2, "spacing (Pixel Spacing)")  # between rows comes first
    lengths = np.linalg.norm(axes, axis=1)
    if not np.allclose(lengths, 1, atol=0.01) or abs(axes[0] @ axes[1]) > 0.01:
        raise InputError("its DICOM orientation is not two perpendicular axes; export it again")
    if min(row_mm, column_mm) <= 0:
        raise InputError("its DICOM pixel spacing is zero; export it again")
    return at, axes / lengths[:, None], np.array([column_mm, row_mm])


def lps_of(planes: Sequence[Plane]) -> tuple[list[int], Matrix]:
    """Order of the slices along their normal, and the matrix from index to LPS mm.

    The step between slices comes from their positions, so a tilted gantry is exact.

    Raises:
        InputError: slices not parallel, of different spacing, or not evenly spaced.
    """
    first = planes[0]
    for plane in planes:
        if not np.allclose(plane.rows, first.rows, atol=1e-3):
            raise InputError("its DICOM slices are not parallel; give a folder with one stack")
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
            raise InputError("its DICOM slices differ in pixel spacing; export the series again")
    order = sorted(range(len(planes)), key=lambda n: float(planes[n].position @ first.normal))
    positions = np.array([planes[n].position for n in order])
    steps = np.diff(positions, axis=0)
    step = (positions[-1] - positions[0]) / max(len(steps), 1)
    length = float(np.linalg.norm(step))
    if length < 1e-3 or np.linalg.norm(steps - step, axis=1).max() > 0.1 * length:
        raise InputError(UNEVEN)
    axes = np.stack([*(first.rows * first.spacing[:, None]), step], axis=1)
    return order, transform.from_parts(axes, positions[0])


def shown(value: Any) -> str:
    """A value of a header in words."""
    if isinstance(value, (int, float)):
        return f"{float(value):g}"
    return str(value) if isinstance(value, str) else "/".join(map(str, value or ()))


def _numbers(value: Any, count: int, what: str) -> np.ndarray:
    try:
        numbers = np.array([float(one) for one in value])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(
            f"its DICOM header states no {what}; export it with its geometry, as a 3D volume"
        )
    return numbers
