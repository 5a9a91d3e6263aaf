"""DICOM files that hold a volume as frames: Enhanced MR and CT, Enhanced Ultrasound Volume.

Spacing, position and orientation stand in functional groups (DICOM PS3.3, C.7.6.16 and, for
ultrasound, C.8.24.3); ultrasound states them in the frame of reference of its volume.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from ..errors import InputError
from ..geometry.transform import Matrix
from .dicom_geometry import Plane, lps_of, shown, stated
from .options import ReadOptions, chosen_frame
from .paths import itk_name
from .transforms import LPS_RAS, quiet

UNREADABLE = "its DICOM frames are truncated or damaged; copy or export it again"
PIXEL_DATA, UNDEFINED = 0x7FE00010, 0xFFFFFFFF
# What tells the volumes of one file apart: (sequence, attribute, how it is shown)
VOLUMES = (
    ("ImageDataTypeSequence", "DataType", "{}"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", "{}"),
    ("MREchoSequence", "EffectiveEchoTime", "echo time {} ms"),
    ("MRDiffusionSequence", "DiffusionBValue", "b {}"),
    ("FrameContentSequence", "StackID", "stack {}"),
    ("FrameContentSequence", "TemporalPositionIndex", "time {}"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset", "time {} s"),
)


def read_multiframe(path: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """Samples ``[K, J, I]`` and index to RAS mm of a multi-frame DICOM file.

    Raises:
        InputError: unreadable, without geometry, or several volumes and none chosen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break a rule of the standard
        image = pydicom.dcmread(os.fspath(path))
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(image.dir()):
        raise InputError(UNREADABLE)
    shared = _first(image, "SharedFunctionalGroupsSequence") or Dataset()
    frames = list(image.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(image.NumberOfFrames)
    if len(frames) != count:
        raise InputError(
            f"a DICOM file of {count} frames that do not state their position; "
            "export it as an enhanced volume or as single slices"
        )
    volumes: dict[str, list[int]] = {}
    for n, frame in enumerate(frames):
        volumes.setdefault(_volume_name(frame, shared), []).append(n)
    volumes = _apart(volumes, frames, shared)
    names = list(volumes)
    name = names[chosen_frame(options, names)] if len(names) > 1 else names[0]
    chosen = volumes[name]
    planes = [_plane(frames[n], shared) for n in chosen]
    if len(planes) < 2:
        raise InputError("one DICOM frame; a 3D volume is needed")
    order, matrix = lps_of(planes)
    samples = _samples(path, image, shared, frames)
    return samples[[chosen[n] for n in order]], LPS_RAS @ matrix


def ends_early(path: Path) -> bool:
    """Whether a file has fewer samples than it says. SimpleITK before 2.5.5, which Slicer 5.10 has,
    reads such a file without complaint."""
    try:
        samples = pydicom.dcmread(os.fspath(path), specific_tags=[PIXEL_DATA]).get_item(PIXEL_DATA)
    except (EOFError, KeyError):
        return True
    length = getattr(samples, "length", UNDEFINED)  # undefined where they are compressed
    return length != UNDEFINED and len(samples.value) < length


def _volume_name(frame: Dataset, shared: Dataset) -> str:
    parts = []
    for sequence, attribute, label in VOLUMES:
        group = _group(frame, shared, sequence)
        if group is not None and attribute in group:
            parts.append(label.format(shown(group[attribute].value)))
    return ", ".join(parts)


def _apart(
    volumes: dict[str, list[int]], frames: list[Dataset], shared: Dataset
) -> dict[str, list[int]]:
    """Only frames that lie on one another are parted: names that do not repeat a place are one
    volume, such as a stack whose slices were taken at different times."""
    every = sorted(n for indices in volumes.values() for n in indices)
    places = {tuple(np.round(_plane(frames[n], shared).position, 3)) for n in every}
    if len(places) == len(every):
        return {"": every}
    return volumes


def _plane(frame: Dataset, shared: Dataset) -> Plane:
    """
    Raises:
        InputError: the frame does not state where it lies.
    """
    measures = _group(frame, shared, "PixelMeasuresSequence")
    spacing = None if measures is None else measures.get("PixelSpacing")
    for kind in ("Patient", "Volume"):
        suffix = "" if kind == "Patient" else "Volume"
        place = _group(frame, shared, f"PlanePosition{suffix}Sequence")
        turn = _group(frame, shared, f"PlaneOrientation{suffix}Sequence")
        if place is not None or turn is not None:
            position = None if place is None else place.get(f"ImagePosition{kind}")
            orientation = None if turn is None else turn.get(f"ImageOrientation{kind}")
            return Plane(*stated(position, orientation, spacing))
    return Plane(*stated(None, None, spacing))


def _samples(path: Path, image: Dataset, shared: Dataset, frames: list[Dataset]) -> np.ndarray:
    """Every frame ``[N, rows, columns]`` in real values."""
    if int(image.get("SamplesPerPixel", 1)) > 1:
        raise InputError("colour frames; export a grey volume")
    rescales = [_rescale(frame, shared) for frame in frames]
    slope, intercept = np.array(rescales).T[:, :, None, None]
    try:
        stored = image.pixel_array.astype(np.float64)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError, EOFError):
        if ends_early(path):
            raise InputError(UNREADABLE) from None
        if len(set(rescales)) > 1:  # SimpleITK would rescale all frames as the first
            raise InputError(f"compressed frames that differ in scale; {UNREADABLE}") from None
        return _decoded(path, len(frames))
    if stored.shape[0] != len(frames):
        raise InputError(UNREADABLE)
    return stored * slope + intercept


def _decoded(path: Path, count: int) -> np.ndarray:
    """Compressed frames, which SimpleITK decodes and rescales."""
    try:
        with quiet():
            samples = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(path)))
    except RuntimeError:
        raise InputError(UNREADABLE) from None
    if samples.ndim != 3 or len(samples) != count:
        raise InputError(UNREADABLE)
    return samples


def _rescale(frame: Dataset, shared: Dataset) -> tuple[float, float]:
    group = _group(frame, shared, "PixelValueTransformationSequence")
    if group is None:
        return 1.0, 0.0
    return float(group.get("RescaleSlope", 1)), float(group.get("RescaleIntercept", 0))


def _group(frame: Dataset, shared: Dataset, sequence: str) -> Dataset | None:
    """A functional group of a frame: its own, or the one that all frames share."""
    found = _first(frame, sequence)
    return _first(shared, sequence) if found is None else found


def _first(dataset: Dataset, sequence: str) -> Any:
    items = dataset.get(sequence)
    return items[0] if items else None
