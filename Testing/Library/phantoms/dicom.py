"""Small DICOM files written by pydicom: series of slices and multi-frame volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from CrossKEYLib.geometry.transform import Matrix

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
ENHANCED_US = "1.2.840.10008.5.1.4.1.1.6.2"
US_CINE = "1.2.840.10008.5.1.4.1.1.3.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write_slices(
    folder: Path, array: np.ndarray, lps: Matrix, uid: str = "1.2.3", **values: object
) -> list[Path]:
    """One file for each slice of ``array [K, J, I]`` with index to LPS mm ``lps``; ``values``
    replace attributes of the header, and None leaves one out."""
    folder.mkdir(exist_ok=True, parents=True)
    paths = []
    for k, plane in enumerate(array):
        header = _image(plane[None], MR, uid, f"{uid}.{k + 1}")
        header.ImagePositionPatient = _decimals((lps @ [0, 0, k, 1])[:3])
        orientation, spacing = map(_decimals, _axes(lps))
        header.ImageOrientationPatient, header.PixelSpacing = orientation, spacing
        header.InstanceNumber, header.SeriesNumber = len(array) - k, 7
        for name, value in values.items():
            if value is None:
                delattr(header, name)
            else:
                setattr(header, name, value)
        # Names in another order than positions
        paths.append(folder / f"{uid}-{len(array) - k:03d}.dcm")
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_frames(
    path: Path, array: np.ndarray, lps: Matrix, kind: str = ENHANCED_MR, **values: object
) -> FileDataset:
    """One multi-frame file; further ``values`` as in `write_slices`."""
    header = _image(array, kind, "1.2.4", "1.2.4.1")
    suffix = "Volume" if kind == ENHANCED_US else ""
    name = "Volume" if kind == ENHANCED_US else "Patient"
    orientation, spacing = _axes(lps)
    header.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    shared = header.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = Sequence([_made(PixelSpacing=spacing, SliceThickness=1.0)])
    turn = _made(**{f"ImageOrientation{name}": orientation})
    setattr(shared, f"PlaneOrientation{suffix}Sequence", Sequence([turn]))
    frames = []
    for k in range(len(array)):
        place = _made(**{f"ImagePosition{name}": (lps @ [0, 0, k, 1])[:3].tolist()})
        frames.append(_made(**{f"PlanePosition{suffix}Sequence": Sequence([place])}))
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for key, value in values.items():
        if value is None:
            delattr(header, key)
        else:
            setattr(header, key, value)
    header.save_as(path, enforce_file_format=True)
    return header


def with_group(frame: Dataset, sequence: str, **values: object) -> None:
    """Give a frame a functional group of its own."""
    setattr(frame, sequence, Sequence([_made(**values)]))


def _made(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _decimals(values: np.ndarray | list[float]) -> list[str]:
    """As a scanner writes them: decimal strings of at most 16 characters."""
    return [f"{round(float(value), 9):.10g}" for value in values]


def _axes(lps: Matrix) -> tuple[list[float], list[float]]:
    """Image Orientation and Pixel Spacing, whose first value lies between rows."""
    lengths = np.linalg.norm(lps[:3, :2], axis=0)
    return (lps[:3, :2] / lengths).T.ravel().tolist(), lengths[::-1].tolist()


def _image(frames: np.ndarray, kind: str, series: str, instance: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = kind, instance
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2.9", series, "MR"
    image.FrameOfReferenceUID = "1.2.8"
    if len(frames) > 1:
        image.NumberOfFrames = len(frames)
    image.Rows, image.Columns = frames.shape[1:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = frames.astype("<u2").tobytes()
    return image
