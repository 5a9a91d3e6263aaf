"""DICOM: headers by pydicom, samples by SimpleITK, geometry from what each slice states.

Nothing is assumed: SimpleITK takes a spacing, position or orientation that is missing as 1 mm,
zero and axis-aligned. A folder may hold several series, and a series several volumes (echoes).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ..errors import InputError
from ..geometry.transform import Matrix
from .dicom_geometry import check_sop_class, lps_of, plane_of, shown
from .dicom_multiframe import ends_early, read_multiframe
from .itk import DAMAGED
from .options import ReadOptions, tell
from .paths import itk_name
from .transforms import LPS_RAS, quiet

UNREADABLE = "a DICOM slice is unreadable; copy or export the series again"
NOTHING = "the folder holds no readable DICOM image; give the folder of one series"
ONE_SLICE = "one DICOM slice; give the folder that holds all slices of its series"


@dataclass(frozen=True)
class Slice:
    """One file: its header without samples."""

    path: Path
    header: Dataset


@dataclass(frozen=True)
class Series:
    """What makes one volume: the slices of a series, of one echo where there are several."""

    slices: list[Slice]
    echo: str = ""

    def text(self, name: str) -> str:
        return str(self.slices[0].header.get(name, "") or "")

    @property
    def names(self) -> set[str]:
        """By any of which a person may choose it."""
        uid = self.text("SeriesInstanceUID")
        own = {uid, self.text("SeriesNumber"), self.text("SeriesDescription")}
        return {f"{name} {self.echo}".strip() for name in own if name} | (own - {""})

    def __str__(self) -> str:
        number, what = self.text("SeriesNumber"), self.text("SeriesDescription")
        name = f"{number or self.text('SeriesInstanceUID')} {self.echo}".strip()
        return f'--series "{name}" ({", ".join(filter(None, [what, f"{self.count} slices"]))})'

    @property
    def count(self) -> int:
        return sum(int(one.header.get("NumberOfFrames", 1) or 1) for one in self.slices)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, whatever its name."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom_file(path: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """Samples ``[K, J, I]`` and index to RAS mm of a file that holds a whole volume.

    Raises:
        InputError: unreadable, one slice, or without a stated geometry.
    """
    itk_name(path)
    header = _header(path)
    if header is None:
        raise InputError(DAMAGED)
    return _read(Series([Slice(path, header)]), options)


def read_dicom_folder(folder: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """The same of a folder that holds one series, or whose series was chosen.

    A handful of scout slices beside a scan is passed over.

    Raises:
        InputError: no series, several alike, slices missing, unreadable or without geometry.
    """
    itk_name(folder)
    series, damaged = _series_of(folder)
    if not series:
        raise InputError(UNREADABLE if any(map(is_dicom, damaged)) else NOTHING)
    chosen = _chosen(series, options)
    uid = chosen.text("SeriesInstanceUID").encode()
    if any(uid in _head(path) for path in damaged):
        raise InputError(UNREADABLE)
    return _read(chosen, options)


def _series_of(folder: Path) -> tuple[list[Series], list[Path]]:
    """The series of a folder, and its files that cannot be read as DICOM."""
    by_uid: dict[str, list[Slice]] = {}
    damaged = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.upper() == "DICOMDIR":
            continue
        header = _header(path)
        if header is None:
            damaged.append(path)
        elif "SeriesInstanceUID" in header and "Rows" in header:
            by_uid.setdefault(str(header.SeriesInstanceUID), []).append(Slice(path, header))
    return [part for slices in by_uid.values() for part in _echoes(slices)], damaged


def _echoes(slices: list[Slice]) -> list[Series]:
    """The volumes of one series: it is parted only where slices lie on one another."""
    positions = [str(one.header.get("ImagePositionPatient", one.path)) for one in slices]
    if len(set(positions)) == len(positions):
        return [Series(slices)]
    for name, label in (
        ("EchoNumbers", "echo {}"),
        ("EchoTime", "echo time {} ms"),
        ("ImageType", "{}"),
        ("TemporalPositionIdentifier", "time {}"),
        ("AcquisitionNumber", "acquisition {}"),
    ):
        parts: dict[str, list[Slice]] = {}
        for one in slices:
            parts.setdefault(shown(one.header.get(name, "")), []).append(one)
        if len(parts) > 1:
            return [Series(part, label.format(value)) for value, part in sorted(parts.items())]
    return [Series(slices)]


def _chosen(series: list[Series], options: ReadOptions) -> Series:
    """The one that was asked for, or that clearly has the most slices."""
    if len(series) == 1:
        return series[0]
    wanted = [one for one in series if one.names & set(options.series)]
    if len(wanted) > 1:  # a series was named, and of its echoes the more exact name counts
        exact = [
            one for one in wanted if f"{one.text('SeriesNumber')} {one.echo}" in options.series
        ]
        wanted = exact or wanted
    series = sorted(series, key=lambda one: one.count, reverse=True)
    if len(wanted) == 1:
        return wanted[0]
    # Scouts and localizers have a handful of slices; two full scans are for the user to choose.
    if not options.series and series[1].count * 2 <= series[0].count:
        tell(
            f"the folder holds {len(series)} DICOM series; the one with the most slices is read, "
            f"{series[0]}; to read another give --series"
        )
        return series[0]
    raise InputError(
        f"the folder holds {len(series)} DICOM series or echoes; choose one with "
        f"{' or '.join(map(str, series[:20]))}{' ...' if len(series) > 20 else ''}"
    )


def _read(series: Series, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    first = series.slices[0].header
    if "PixelData" not in first and "Rows" not in first:
        raise InputError("a DICOM file without an image; give the folder of one series")
    check_sop_class(first)
    if "NumberOfFrames" in first and int(first.NumberOfFrames or 1) > 1:
        if len(series.slices) > 1:
            raise InputError(f"{len(series.slices)} multi-frame files in one series; give one file")
        return read_multiframe(series.slices[0].path, options)
    if len(series.slices) == 1:
        raise InputError(ONE_SLICE)
    if any(ends_early(one.path) for one in series.slices):
        raise InputError(UNREADABLE)
    planes = [plane_of(one.header) for one in series.slices]
    order, matrix = lps_of(planes)
    names = [itk_name(series.slices[n].path) for n in order]
    try:
        with quiet():
            image = sitk.ReadImage(names)
    except RuntimeError:
        raise InputError(UNREADABLE) from None
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError("colour slices; export a grey volume")
    return sitk.GetArrayFromImage(image), LPS_RAS @ matrix


def _header(path: Path) -> Dataset | None:
    """Without samples; None for a file that is no sound DICOM."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break a rule of the standard
            header = pydicom.dcmread(os.fspath(path), stop_before_pixels=True)
            header.get("SeriesInstanceUID")
            return header
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError):
        return None


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 14)
