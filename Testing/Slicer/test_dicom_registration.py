"""The registration as a DICOM object: what another program reads out of it."""

from __future__ import annotations

import types

import numpy as np
import pytest
from cases import TRUTH, pose, registered, transform

LPS = np.diag([-1.0, -1, 1, 1])
POINTS = np.array([[0.0, 0, 0, 1], [30, -10, 5, 1], [-7, 22, 40, 1]])  # of the ultrasound, RAS mm


def as_from_dicom(node, file, frame, series, patient="P1", study="1.2.3"):
    """Give a node what Slicer gives one that it has read from DICOM, and write the first header."""
    import slicer
    import vtk
    from CrossKEYSlicer.scene import dicom_registration
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    to_lps = LPS @ slicer.util.arrayFromVTKMatrix(matrix)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    axes = to_lps[:3, :3] / spacing
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"{series}.0"
    header.PatientID, header.PatientName = patient, "Doe^Jane"
    header.StudyInstanceUID, header.SeriesInstanceUID = study, series
    header.FrameOfReferenceUID = frame
    header.ImagePositionPatient = [f"{x:.6f}" for x in to_lps[:3, 3]]
    header.ImageOrientationPatient = [f"{x:.8f}" for x in axes[:, :2].T.ravel()]
    header.PixelSpacing = [f"{x:.6f}" for x in spacing[[1, 0]]]
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom_registration.store(header, file)
    count = node.GetImageData().GetDimensions()[2]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(f"{series}.{i}" for i in range(count)))
    return f"{series}.0", str(file)


@pytest.fixture
def from_dicom(volumes, tmp_path, monkeypatch):
    """MRI and ultrasound as Slicer reads them from DICOM, of one patient and two studies."""
    import slicer

    def make(**of_ius):
        mri, ius = volumes
        given = {"frame": "1.2.8", "series": "1.5.2", "study": "1.2.4", **of_ius}
        known = dict(
            [
                as_from_dicom(mri, tmp_path / "mri.dcm", "1.2.7", "1.5.1"),
                as_from_dicom(ius, tmp_path / "ius.dcm", **given),
            ]
        )
        database = types.SimpleNamespace(fileForInstance=lambda uid: known.get(uid, ""))
        monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
        return mri, ius

    return make


def saved(panel, folder):
    panel.pickFolder = lambda: str(folder)
    panel.ui.reportButton.click()
    return folder / "registration.dcm"


def matrices(file) -> dict[str, np.ndarray]:
    """By the Frame of Reference that each takes to the object's own; LPS."""
    import pydicom

    return {
        str(item.FrameOfReferenceUID): np.array(
            item.MatrixRegistrationSequence[0]
            .MatrixSequence[0]
            .FrameOfReferenceTransformationMatrix,
            float,
        ).reshape(4, 4)
        for item in pydicom.dcmread(file).RegistrationSequence
    }


def check_both_ways(found: dict[str, np.ndarray], truth: np.ndarray = TRUTH) -> None:
    """From the ultrasound to the MRI, and from the MRI back."""
    np.testing.assert_array_equal(found["1.2.7"], np.eye(4))
    mri_points = POINTS @ truth.T
    forth = POINTS @ LPS @ found["1.2.8"].T @ LPS
    np.testing.assert_allclose(forth, mri_points, atol=1e-4)
    back = mri_points @ LPS @ np.linalg.inv(found["1.2.8"]).T @ LPS
    np.testing.assert_allclose(back, POINTS, atol=1e-4)


def test_the_object_takes_the_ultrasound_to_the_mri_and_back(panel, from_dicom, wait, tmp_path):
    import pydicom
    import SimpleITK as sitk

    mri, ius = from_dicom()
    registered(panel, wait, (mri, ius))
    file = saved(panel, tmp_path / "report")
    assert panel.ui.statusLabel.text == "5 files written."
    check_both_ways(matrices(file))
    read = pydicom.dcmread(file)
    assert read.FrameOfReferenceUID == "1.2.7", "the MRI is what does not move"
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.1"
    assert (read.PatientID, str(read.PatientName)) == ("P1", "Doe^Jane")
    assert (read.StudyInstanceUID, read.Modality) == ("1.2.3", "REG")
    images = [len(item.ReferencedImageSequence) for item in read.RegistrationSequence]
    assert images == [node.GetImageData().GetDimensions()[2] for node in (mri, ius)]
    (other,) = read.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "1.2.4"
    assert other.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.5.2"
    step = read.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    assert step.FrameOfReferenceTransformationMatrixType == "RIGID"
    # ITK's file beside it says the same, in its own direction: from the MRI to the ultrasound.
    itk = sitk.ReadTransform(str(tmp_path / "report/transform.tfm"))
    for point in (POINTS @ LPS)[:, :3]:
        there = itk.TransformPoint(point.tolist())
        back = np.linalg.inv(matrices(file)["1.2.8"]) @ [*point, 1]
        np.testing.assert_allclose(there, back[:3], atol=1e-4)


def test_trackers_and_the_state_shown_play_no_part(panel, scene, from_dicom, wait, tmp_path):
    """The files are between the images' own coordinates, after registration."""
    mri, ius = from_dicom()
    transform(scene, "tracker", pose(25, 3, -8, 5), ius)
    transform(scene, "patient", pose(-10, 0, 4, 0), mri)
    registered(panel, wait, (mri, ius))
    panel.logic.showAfter(False)
    check_both_ways(matrices(saved(panel, tmp_path / "before")))


def test_what_a_person_has_moved_is_what_is_written(panel, from_dicom, wait, tmp_path):
    from CrossKEYSlicer.scene import chain

    registered(panel, wait, from_dicom())
    by_hand = pose(3, 1, 0, 0) @ TRUTH
    chain.set_matrix(panel.logic.parameters.registeredTransform, by_hand)
    check_both_ways(matrices(saved(panel, tmp_path / "moved")), by_hand)


def test_names_with_accents_survive(panel, from_dicom, wait, tmp_path):
    import pydicom
    from CrossKEYSlicer.scene import dicom_registration

    pair = from_dicom()
    header = pydicom.dcmread(tmp_path / "mri.dcm")
    header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", "Müller^Zoë"
    dicom_registration.store(header, tmp_path / "mri.dcm")
    registered(panel, wait, pair)
    read = pydicom.dcmread(saved(panel, tmp_path / "report"))
    assert str(read.PatientName) == "Müller^Zoë"


@pytest.mark.parametrize(
    ("of_ius", "words"),
    [
        ({"patient": "P2"}, "different patient IDs"),
        ({"frame": "1.2.7"}, "one frame of reference"),
    ],
)
def test_no_object_for_series_that_do_not_go_together(
    panel, from_dicom, wait, tmp_path, of_ius, words
):
    registered(panel, wait, from_dicom(**of_ius))
    assert not saved(panel, tmp_path / "report").exists()
    assert words in panel.ui.statusLabel.text
    assert panel.ui.statusLabel.text.startswith("4 files written.")


def test_no_object_where_the_geometry_is_not_that_of_the_files(panel, from_dicom, wait, tmp_path):
    """As after hardening a transform: the files' coordinates are not the node's any more."""
    import slicer
    import vtk

    mri, ius = from_dicom()
    matrix = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(matrix)
    moved = pose(0, 0, 3, 0) @ slicer.util.arrayFromVTKMatrix(matrix)
    ius.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(moved))
    registered(panel, wait, (mri, ius))
    assert not saved(panel, tmp_path / "report").exists()
    assert "its geometry was changed" in panel.ui.statusLabel.text


def test_no_object_without_dicom(panel, volumes, wait, tmp_path):
    registered(panel, wait, volumes)
    assert not saved(panel, tmp_path / "report").exists()
    assert "'MRI' was not loaded from DICOM" in panel.ui.statusLabel.text
