"""A registration as a DICOM Spatial Registration object, for images that came from DICOM.

DICOM PS3.3, C.20.2: each item of the Registration Sequence takes the coordinates of one Frame of
Reference to those of the object's own, here the MRI's; LPS, mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..problem import Problem

STORAGE = "1.2.840.10008.5.1.4.1.1.66.1"  # Spatial Registration Storage
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # to and from RAS
IN_PLACE_VOXELS = 0.05  # between a slice's position in the file and in the scene
RIGID_TOLERANCE = 1e-4
# Of Patient and General Study, which the object shares with the MRI. Required ones may be empty.
SHARED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID")
SHARED += ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")


@dataclass(frozen=True)
class Series:
    """A volume node's images in DICOM.

    Attributes:
        header: of the first one, without its pixels.
        instances: SOP Instance UID of each.
    """

    header: Any
    instances: tuple[str, ...]


def obstacle(mri: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode) -> str:
    """Why there can be no object for these images, in words; empty when there can."""
    try:
        _both(mri, ius)
    except Problem as problem:
        return str(problem)
    return ""


def write(
    mri: vtkMRMLScalarVolumeNode,
    ius: vtkMRMLScalarVolumeNode,
    T_fixed_moving: np.ndarray,
    description: str,
    version: str,
    file: Path,
) -> Path:
    """
    Args:
        T_fixed_moving: from the ultrasound's own coordinates to the MRI's, RAS mm.
        description: what a person reads about the object, such as its verdict.
        version: of CrossKEY.

    Raises:
        Problem: the images did not come from DICOM, or are not as they came; OSError from writing.
    """
    fixed, moving = _both(mri, ius)
    made = _object(fixed, moving, LPS @ np.asarray(T_fixed_moving, float) @ LPS)
    made.ContentDescription = description[:64]
    made.SoftwareVersions = version[:64]
    part = file.with_name(file.name + ".part")
    store(made, part)
    part.replace(file)
    return file


def store(made: Any, file: Path) -> None:
    """A data set with its file meta information as a file, by pydicom 2 or 3."""
    import pydicom

    if int(pydicom.__version__.split(".")[0]) >= 3:
        made.save_as(file, enforce_file_format=True)
    else:
        made.is_little_endian, made.is_implicit_VR = True, False
        made.save_as(file, write_like_original=False)


def _both(mri: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode) -> tuple[Series, Series]:
    """
    Raises:
        Problem: one is not as it came from DICOM, or they are of two patients.
    """
    fixed, moving = _series(mri), _series(ius)
    patients = {str(series.header.get("PatientID", "")) for series in (fixed, moving)}
    if len(patients) > 1:
        raise Problem(_("the two series have different patient IDs."))
    if fixed.header.FrameOfReferenceUID == moving.header.FrameOfReferenceUID:
        # Readers go by these, and would move the MRI as well.
        raise Problem(_("DICOM lists both series in one frame of reference."))
    return fixed, moving


def _series(node: vtkMRMLScalarVolumeNode) -> Series:
    """
    Raises:
        Problem: the node did not come from DICOM, or does not lie where its files say.
    """
    name = node.GetName()
    instances = tuple((node.GetAttribute("DICOM.instanceUIDs") or "").split())
    database = getattr(slicer, "dicomDatabase", None)
    file = database.fileForInstance(instances[0]) if database is not None and instances else ""
    if not file or not Path(file).is_file():
        raise Problem(_("'{name}' was not loaded from DICOM.").format(name=name))
    import pydicom  # only here: it takes long

    header = pydicom.dcmread(file, stop_before_pixels=True)
    if not header.get("FrameOfReferenceUID") or "ImagePositionPatient" not in header:
        text = _("the DICOM files of '{name}' do not say where the image lies in the patient.")
        raise Problem(text.format(name=name))
    if not _lies_as_in(header, node):
        text = _("'{name}' does not lie where its DICOM files say; its geometry was changed.")
        raise Problem(text.format(name=name))
    return Series(header, instances)


def _lies_as_in(header: Any, node: vtkMRMLScalarVolumeNode) -> bool:
    """Whether the first voxel of a slice is at a corner of the volume, and its rows along an axis.
    A transform above the node does not count; one that was hardened does."""
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    to_ijk = slicer.util.arrayFromVTKMatrix(matrix) @ LPS
    first = to_ijk @ [*map(float, header.ImagePositionPatient), 1.0]
    size = np.array(node.GetImageData().GetDimensions())
    ends = np.minimum(np.abs(first[:3]), np.abs(first[:3] - (size - 1)))
    if (np.sort(ends)[:2] > IN_PLACE_VOXELS).any():  # a slice may be the first, last or any other
        return False
    # Pixel Spacing is between rows, then between columns.
    between_rows, between_columns = map(float, header.PixelSpacing)
    along = np.asarray(header.ImageOrientationPatient, float).reshape(2, 3)
    steps = to_ijk[:3, :3] @ (along * [[between_columns], [between_rows]]).T
    on_axis = np.abs(np.abs(steps).max(axis=0) - 1) < IN_PLACE_VOXELS
    return bool(on_axis.all() and (np.abs(steps).sum(axis=0) < 1 + IN_PLACE_VOXELS).all())


def _object(fixed: Series, moving: Series, T_fixed_moving: np.ndarray) -> Any:
    """The data set; the matrix is LPS mm."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence as Items
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made, now = Dataset(), datetime.now()
    made.SOPClassUID, made.SOPInstanceUID = STORAGE, generate_uid()
    for name in SHARED:
        setattr(made, name, fixed.header.get(name, ""))
    if "SpecificCharacterSet" in fixed.header:
        made.SpecificCharacterSet = fixed.header.SpecificCharacterSet
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = "REG", generate_uid(), None
    made.BodyPartExamined = "BRAIN"
    made.SeriesDescription = "CrossKEY registration"
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    made.Manufacturer, made.ManufacturerModelName = "CrossKEY for 3D Slicer", "CrossKEY"
    made.DeviceSerialNumber = "0"
    made.InstanceNumber, made.ContentLabel, made.ContentCreatorName = 1, "REGISTRATION", ""
    made.FrameOfReferenceUID = fixed.header.FrameOfReferenceUID
    made.PositionReferenceIndicator = ""
    made.RegistrationSequence = Items(
        [_registered(fixed, np.eye(4)), _registered(moving, T_fixed_moving)]
    )
    here = fixed.header.StudyInstanceUID
    made.ReferencedSeriesSequence = Items(
        [_referenced(one) for one in (fixed, moving) if one.header.StudyInstanceUID == here]
    )
    if moving.header.StudyInstanceUID != here:
        study = Dataset()
        study.StudyInstanceUID = moving.header.StudyInstanceUID
        study.ReferencedSeriesSequence = Items([_referenced(moving)])
        made.StudiesContainingOtherReferencedInstancesSequence = Items([study])
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _registered(series: Series, matrix: np.ndarray) -> Any:
    """One item of the Registration Sequence."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items
    from pydicom.valuerep import format_number_as_ds

    step, way, item = Dataset(), Dataset(), Dataset()
    turn = matrix[:3, :3]
    rigid = np.allclose(turn @ turn.T, np.eye(3), atol=RIGID_TOLERANCE)
    rigid = rigid and np.linalg.det(turn) > 0
    step.FrameOfReferenceTransformationMatrixType = "RIGID" if rigid else "AFFINE"
    # Decimal strings hold 16 characters.
    step.FrameOfReferenceTransformationMatrix = [
        format_number_as_ds(float(value)) for value in matrix.ravel()
    ]
    way.MatrixSequence = Items([step])
    way.RegistrationTypeCodeSequence = Items([])
    item.FrameOfReferenceUID = series.header.FrameOfReferenceUID
    item.ReferencedImageSequence = Items(_instances(series))
    item.MatrixRegistrationSequence = Items([way])
    return item


def _referenced(series: Series) -> Any:
    """A series and its instances, as the Common Instance Reference module lists them."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    item = Dataset()
    item.SeriesInstanceUID = series.header.SeriesInstanceUID
    item.ReferencedInstanceSequence = Items(_instances(series))
    return item


def _instances(series: Series) -> Sequence[Any]:
    from pydicom.dataset import Dataset

    items = []
    for uid in series.instances:
        item = Dataset()
        item.ReferencedSOPClassUID = series.header.SOPClassUID
        item.ReferencedSOPInstanceUID = uid
        items.append(item)
    return items
