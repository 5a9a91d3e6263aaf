"""One volume from a folder of DICOM slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError

POSITION = "0020|0032"  # Image Position (Patient)
UNREADABLE = "a DICOM slice is unreadable; copy or export the series again"


def read_series(folder: Path) -> sitk.Image:
    """Read the one series of a folder; of several, the one that clearly has the most slices.

    The step between slices comes from their stored positions, so a tilted gantry is exact.

    Raises:
        InputError: no series, several alike, slices missing or unreadable.
    """
    names = _slices(folder)
    try:
        if len(names) == 1:  # an enhanced (multi-frame) file carries its own geometry
            return sitk.ReadImage(names[0])
        image = sitk.ReadImage(names)
        _place(image, np.array([_position(name) for name in names]))
    except RuntimeError:
        raise InputError(UNREADABLE) from None
    return image


def _slices(folder: Path) -> list[str]:
    """File names of the wanted series, sorted along the slice normal."""
    series = {
        uid: list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    }
    if not series:
        raise InputError("the folder holds no readable DICOM image; give the folder of one series")
    counts = sorted((len(names) for names in series.values()), reverse=True)
    # Scouts and localizers have a handful of slices; two full scans are for the user to choose.
    if len(counts) > 1 and counts[1] * 2 > counts[0]:
        raise InputError(
            f"the folder holds {len(series)} DICOM series, two of them with {counts[0]} and "
            f"{counts[1]} slices; give a folder that holds one series"
        )
    uid, names = max(series.items(), key=lambda item: len(item[1]))
    listed = {Path(name).name for name in names}
    for stray in folder.iterdir():  # GDCM passes over damaged slices in silence
        if stray.is_file() and stray.name not in listed and uid.encode() in _head(stray):
            raise InputError(UNREADABLE)
    return names


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 14)


def _position(name: str) -> list[float]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    if not reader.HasMetaDataKey(POSITION):
        raise InputError("its DICOM slices carry no position; export the series again")
    return [float(value) for value in reader.GetMetaData(POSITION).split("\\")]


def _place(image: sitk.Image, positions: np.ndarray) -> None:
    """Set slice step and origin of ``image`` from the slices' positions ``[N, 3]``."""
    steps = np.diff(positions, axis=0)
    step = steps.mean(0)
    length = float(np.linalg.norm(step))
    if length < 1e-3 or np.linalg.norm(steps - step, axis=1).max() > 0.1 * length:
        raise InputError(
            "its DICOM slices are not evenly spaced (some are missing or doubled); "
            "export the series again"
        )
    direction = np.array(image.GetDirection()).reshape(3, 3)
    direction[:, 2] = step / length
    image.SetSpacing((*image.GetSpacing()[:2], length))
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(positions[0].tolist())
