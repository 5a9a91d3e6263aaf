"""Enhanced DICOM: geometry from the functional groups, beside SimpleITK's own reading."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from phantoms.dicom import (
    ENHANCED_MR,
    ENHANCED_US,
    SECONDARY_CAPTURE,
    US_CINE,
    with_group,
    write_frames,
    write_slices,
)
from phantoms.volumes import matrix_of, refusal

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.formats.options import ReadOptions
from CrossKEYLib.formats.volumes import read_volume

SAMPLES = np.arange(10 * 12 * 15).reshape(10, 12, 15) % 997
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS = matrix_of("oblique", (0.5, 0.8, 2.0))
# Decimal strings of DICOM hold 16 characters
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.mark.parametrize("kind", [ENHANCED_MR, ENHANCED_US])
def test_enhanced_volumes_lie_where_their_frames_do(tmp_path, kind):
    write_frames(tmp_path / "v.dcm", SAMPLES, LPS, kind)
    for path in (tmp_path, tmp_path / "v.dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, SAMPLES)
        np.testing.assert_allclose(volume.ijk_to_ras, LPS_RAS @ LPS, **CLOSE)


def test_enhanced_mr_lies_where_simpleitk_puts_it(tmp_path):
    write_frames(tmp_path / "v.dcm", SAMPLES, LPS)
    image = sitk.ReadImage(str(tmp_path / "v.dcm"))
    matrix = read_volume(tmp_path / "v.dcm").ijk_to_ras
    for index in [(0, 0, 0), (14, 0, 0), (0, 11, 0), (0, 0, 9), (3, 7, 5)]:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((matrix @ [*index, 1])[:3], [-x, -y, z], **CLOSE)


# (row, column, frame as stored) of a sample, and where it lies, LPS mm
PLACES = {
    (0, 0, 0): (7.6, 21.8, 30.0),
    (0, 9, 0): (8.95, 23.6, 30.0),
    (8, 0, 0): (7.6, 21.8, 26.8),
    (0, 0, 1): (10.0, 20.0, 30.0),
    (5, 4, 7): (3.4, 26.2, 28.0),
}


def test_an_ultrasound_volume_lies_where_the_standard_puts_it(tmp_path):
    """The places above were worked out by hand from DICOM PS3.3, equation C.7.6.2.1-1: Image
    Position + column index * spacing of columns * first cosine + row index * spacing of rows *
    second cosine. highdicom 0.28.2 does not read the groups of ultrasound; for this file with its
    groups under the names of their twins for patients (Plane Position, Plane Orientation) it gives
    the same places, to 1e-6 mm."""
    samples = np.arange(8 * 9 * 10).reshape(8, 9, 10)
    header = write_frames(tmp_path / "v.dcm", samples, np.eye(4), ENHANCED_US)
    shared = header.SharedFunctionalGroupsSequence[0]
    with_group(shared, "PixelMeasuresSequence", PixelSpacing=[0.4, 0.25])  # of rows, of columns
    cosines = [0.6, 0.8, 0.0, 0.0, 0.0, -1.0]
    with_group(shared, "PlaneOrientationVolumeSequence", ImageOrientationVolume=cosines)
    frames = header.PerFrameFunctionalGroupsSequence
    for frame, step in zip(frames, (2, 0, 1, 7, 4, 3, 5, 6), strict=True):
        place = [10.0 - 1.2 * step, 20.0 + 0.9 * step, 30.0]
        with_group(frame, "PlanePositionVolumeSequence", ImagePositionVolume=place)
    header.save_as(tmp_path / "v.dcm")
    volume = read_volume(tmp_path / "v.dcm")
    for (row, column, frame), place in PLACES.items():
        (found,) = (volume.array == int(samples[frame, row, column])).nonzero().tolist()
        ras = volume.ijk_to_ras @ [*found[::-1], 1]
        np.testing.assert_allclose((LPS_RAS @ ras)[:3], place, **CLOSE)


def test_a_file_without_extension_is_known_by_its_content(tmp_path):
    write_frames(tmp_path / "IM0001", SAMPLES, LPS)
    np.testing.assert_array_equal(read_volume(tmp_path / "IM0001").array, SAMPLES)


def test_frames_in_any_order_and_each_with_its_scale(tmp_path):
    header = write_frames(tmp_path / "v.dcm", SAMPLES, LPS)
    frames = header.PerFrameFunctionalGroupsSequence
    slopes = np.arange(1, 11)
    for frame, slope in zip(frames, slopes, strict=True):
        with_group(
            frame, "PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=-5
        )
    order = np.random.default_rng(0).permutation(10)
    header.PixelData = SAMPLES[order].astype("<u2").tobytes()
    header.PerFrameFunctionalGroupsSequence = [frames[n] for n in order]
    header.save_as(tmp_path / "v.dcm")
    expected = SAMPLES * slopes[:, None, None] - 5
    np.testing.assert_array_equal(read_volume(tmp_path / "v.dcm").array, expected)


def test_several_volumes_in_one_file_are_chosen_by_frame(tmp_path):
    both = np.concatenate([SAMPLES, SAMPLES + 1])
    header = write_frames(tmp_path / "v.dcm", both, LPS)
    frames = header.PerFrameFunctionalGroupsSequence
    for n, frame in enumerate(frames):
        frame.PlanePositionSequence = frames[n % 10].PlanePositionSequence
        with_group(frame, "MREchoSequence", EffectiveEchoTime=10.0 if n < 10 else 90.0)
    header.save_as(tmp_path / "v.dcm")
    said = refusal(tmp_path / "v.dcm")
    assert "a sequence of 2 volumes (1: echo time 10 ms; 2: echo time 90 ms)" in said
    with pytest.warns(InputWarning, match="volume 2 of 2 is used"):
        volume = read_volume(tmp_path / "v.dcm", ReadOptions(frame=2))
    np.testing.assert_array_equal(volume.array, SAMPLES + 1)
    np.testing.assert_allclose(volume.ijk_to_ras, LPS_RAS @ LPS, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (US_CINE, "an ultrasound cine clip of 10 frames (2D and time), not a volume"),
        (SECONDARY_CAPTURE, "a secondary capture (a picture of a screen), which states no geom"),
        (ENHANCED_MR, "a DICOM file of 10 frames that do not state their position"),
    ],
)
def test_frames_without_geometry_are_refused(tmp_path, kind, text):
    write_frames(
        tmp_path / "v.dcm",
        SAMPLES,
        LPS,
        kind,
        PerFrameFunctionalGroupsSequence=None,
        SharedFunctionalGroupsSequence=None,
    )
    assert text in refusal(tmp_path / "v.dcm")


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("PixelSpacing", "states no spacing (Pixel Spacing)"),
        ("ImageOrientationPatient", "states no orientation (Image Orientation)"),
        ("ImagePositionPatient", "states no position (Image Position)"),
    ],
)
def test_slices_without_geometry_are_refused(tmp_path, attribute, text):
    write_slices(tmp_path / "d", SAMPLES, LPS, **{attribute: None})
    assert text in refusal(tmp_path / "d")


def test_missing_spacing_of_frames_is_named(tmp_path):
    header = write_frames(tmp_path / "v.dcm", SAMPLES, LPS, ENHANCED_US)
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    header.save_as(tmp_path / "v.dcm")
    assert "states no spacing (Pixel Spacing)" in refusal(tmp_path / "v.dcm")


def test_echoes_and_series_are_listed_and_chosen(tmp_path):
    write_slices(tmp_path, SAMPLES, LPS, "1.2.3", EchoTime=10, SeriesDescription="dual")
    for path in tmp_path.glob("1.2.3-*"):
        path.rename(path.with_name("a" + path.name))
    write_slices(tmp_path, SAMPLES + 1, LPS, "1.2.3", EchoTime=90, SeriesDescription="dual")
    said = refusal(tmp_path)
    assert '--series "7 echo time 10 ms" (dual, 10 slices)' in said
    assert '--series "7 echo time 90 ms" (dual, 10 slices)' in said
    late = read_volume(tmp_path, ReadOptions(series=("7 echo time 90 ms",)))
    np.testing.assert_array_equal(late.array, SAMPLES + 1)
    write_slices(tmp_path, SAMPLES + 2, LPS, "1.2.5", SeriesNumber=9, SeriesDescription="other")
    for name in ("1.2.5", "9", "other"):
        other = read_volume(tmp_path, ReadOptions(series=("of the other folder", name)))
        np.testing.assert_array_equal(other.array, SAMPLES + 2)
    with pytest.raises(InputError, match="3 DICOM series or echoes; choose one with"):
        read_volume(tmp_path, ReadOptions(series=("none of these",)))


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    write_slices(tmp_path, SAMPLES, LPS)
    (tmp_path / "README.txt").write_text("the patient's scan")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    report = pydicom.dcmread(tmp_path / "1.2.3-001.dcm")
    del report.PixelData, report.Rows
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(tmp_path / "report.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).array, SAMPLES)


def test_truncated_frames(tmp_path, capfd):
    write_frames(tmp_path / "v.dcm", SAMPLES, LPS)
    data = (tmp_path / "v.dcm").read_bytes()
    for share in (0.2, 0.6, 0.99):
        (tmp_path / "v.dcm").write_bytes(data[: int(share * len(data))])
        assert "export it again" in refusal(tmp_path / "v.dcm")
    assert capfd.readouterr() == ("", "")


def test_localizers_of_three_directions_are_refused(tmp_path):
    for n, orientation in enumerate(("ras", "permuted")):
        write_slices(tmp_path, SAMPLES[:5], matrix_of(orientation, (1, 1, 1)), "1.2.3")
        for path in tmp_path.glob("1.2.3-*"):
            path.rename(path.with_name(f"{n}{path.name}"))
    assert "not parallel" in refusal(tmp_path)
