"""NRRD and MetaImage: sequences of frames, units, spaces and missing data files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms.volumes import SHAPE, noise_volume, refusal

from CrossKEYLib.errors import InputWarning
from CrossKEYLib.formats.options import ReadOptions
from CrossKEYLib.formats.volumes import read_volume, write_volume

FRAMES = np.arange(np.prod((10, *SHAPE))).reshape(10, *SHAPE).astype(np.float32)


def nrrd(path: Path, array: np.ndarray, **fields: str | None) -> Path:
    """A raw NRRD file, first axis fastest; None leaves a field out, ``_`` stands for a space."""
    header = {
        "type": "float",
        "dimension": str(array.ndim),
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape[::-1])),
        "space directions": "(1,0,0) (0,2,0) (0,0,3)",
        "space origin": "(4,5,6)",
        "encoding": "raw",
        "endian": "little",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    lines = ["NRRD0005", *(f"{key}: {value}" for key, value in header.items() if value is not None)]
    detached = "data file" in header
    data = array.astype("<f4").tobytes()
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + (b"" if detached else data))
    return path


def mha(path: Path, array: np.ndarray, **fields: str) -> Path:
    """A MetaImage file."""
    rank = array.ndim
    header = {
        "ObjectType": "Image",
        "NDims": str(rank),
        "BinaryData": "True",
        "TransformMatrix": " ".join(map(str, np.eye(rank, dtype=int).ravel())),
        "Offset": " ".join("0" * rank),
        "ElementSpacing": " ".join("1" * rank),
        "DimSize": " ".join(map(str, array.shape[::-1])),
        "ElementType": "MET_FLOAT",
    } | fields
    lines = [*(f"{key} = {value}" for key, value in header.items()), "ElementDataFile = LOCAL\n"]
    path.write_bytes("\n".join(lines).encode() + array.astype("<f4").tobytes())
    return path


TRACKED = {
    f"Seq_Frame{n:04d}_ProbeToTrackerTransform": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1" for n in range(9)
}


@pytest.mark.parametrize("name", ["recording.igs.mha", "recording.seq.mha", "recording.mha"])
def test_tracked_frames_of_plus_are_no_volume(tmp_path, name):
    said = refusal(mha(tmp_path / name, FRAMES[0], Kinds="domain domain list", **TRACKED))
    assert said.startswith("a tracked sequence of 9 2D frames, not a volume")
    assert "VolumeReconstructor of PLUS" in said
    assert "SlicerIGT" in said
    assert "tracked sequence of 9 2D frames" in refusal(mha(tmp_path / name, FRAMES[0], **TRACKED))
    flat = FRAMES[:9, :1]
    assert "tracked sequence of 9 2D frames" in refusal(mha(tmp_path / name, flat, **TRACKED))


def test_tracked_frames_of_nrrd_are_no_volume(tmp_path):
    path = tmp_path / "r.seq.nrrd"
    lines = "\n".join(f"{key}={value}" for key, value in TRACKED.items())
    nrrd(path, FRAMES[0], kinds="domain domain list", space_directions="(1,0,0) (0,1,0) none")
    assert refusal(path).startswith("a sequence of 9 2D frames, not a volume")
    plain = nrrd(path, FRAMES[0]).read_bytes()
    path.write_bytes(plain.replace(b"encoding", lines.replace("=", ":=").encode() + b"\nencoding"))
    assert refusal(path).startswith("a tracked sequence of 9 2D frames, not a volume")


def test_a_volume_is_chosen_from_a_sequence(tmp_path):
    last = mha(tmp_path / "v.seq.mha", FRAMES, Kinds="domain domain domain list")
    first = nrrd(
        tmp_path / "v.seq.nrrd",
        np.moveaxis(FRAMES, 0, -1),  # as Slicer's sequences
        kinds="list domain domain domain",
        space_directions="none (1,0,0) (0,2,0) (0,0,3)",
    )
    series = sitk.JoinSeries([sitk.GetImageFromArray(frame) for frame in FRAMES])
    sitk.WriteImage(series, str(tmp_path / "v.nii.gz"))
    for path in (last, first, tmp_path / "v.nii.gz"):
        assert refusal(path) == "a sequence of 10 volumes; choose one with --frame 1 to 10"
        with pytest.warns(InputWarning, match="volume 4 of 10 is used"):
            volume = read_volume(path, ReadOptions(frame=4))
        np.testing.assert_array_equal(volume.array, FRAMES[3])
        with pytest.raises(
            Exception, match="there is no frame 11; choose one with --frame 1 to 10"
        ):
            read_volume(path, ReadOptions(frame=11))
    with pytest.warns(InputWarning):
        np.testing.assert_allclose(
            read_volume(first, ReadOptions(frame=1)).ijk_to_ras,
            [[-1, 0, 0, -4], [0, -2, 0, -5], [0, 0, 3, 6], [0, 0, 0, 1]],
        )


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_spaces(tmp_path, space, signs):
    volume = read_volume(nrrd(tmp_path / "v.nrrd", FRAMES[0], space=space))
    expected = np.diag([*signs, 1]) @ [[1, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.ijk_to_ras, expected)


def test_a_space_that_says_nothing_of_the_patient_is_refused(tmp_path):
    for fields in ({"space": None, "space_dimension": "3"}, {"space": "scanner-xyz"}):
        said = refusal(nrrd(tmp_path / "v.nrrd", FRAMES[0], **fields))
        assert "does not state in which directions its axes point ('space' is" in said


def test_units_are_converted_and_told(tmp_path):
    metres = nrrd(
        tmp_path / "m.nrrd",
        FRAMES[0],
        space_units='"m" "m" "m"',
        space_directions="(0.001,0,0) (0,0.002,0) (0,0,0.003)",
        space_origin="(0.004,0.005,0.006)",
    )
    with pytest.warns(InputWarning, match="states lengths in m; they were converted to mm"):
        volume = read_volume(metres)
    plain = read_volume(nrrd(tmp_path / "v.nrrd", FRAMES[0], space_units='"mm" "mm" "mm"'))
    np.testing.assert_allclose(volume.ijk_to_ras, plain.ijk_to_ras)
    said = refusal(nrrd(tmp_path / "w.nrrd", FRAMES[0], space_units='"m" "m" "m"'))
    assert "lengths in m, which makes voxels of 1000 x 2000 x 3000 mm" in said
    said = refusal(nrrd(tmp_path / "w.nrrd", FRAMES[0], space_units='"furlong" "" ""'))
    assert "lengths in 'furlong'" in said
    said = refusal(nrrd(tmp_path / "w.nrrd", FRAMES[0], space_units='"mm" "mm" "m"'))
    assert "its axes have different units (m, mm)" in said


def test_metaimage_in_micrometres(tmp_path):
    path = mha(tmp_path / "v.mha", FRAMES[0], DistanceUnits="um", ElementSpacing="500 600 700")
    with pytest.warns(InputWarning, match="states lengths in um"):
        np.testing.assert_allclose(read_volume(path).spacing_mm, [0.5, 0.6, 0.7])


def test_lengths_in_metres_without_a_unit_are_guessed_in_words(tmp_path):
    path = mha(tmp_path / "v.mha", FRAMES[0], ElementSpacing="0.0005 0.0005 0.0005")
    assert "0.0005 x 0.0005 x 0.0005 mm (it looks like metres)" in refusal(path)


def test_a_header_without_its_data_file(tmp_path):
    text = nrrd(tmp_path / "v.nhdr", FRAMES[0], data_file="v.raw")
    assert refusal(text) == "its data file v.raw is missing; put it beside the header"
    sitk.WriteImage(sitk.GetImageFromArray(FRAMES[0]), str(tmp_path / "w.mhd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "w.mhd").array, FRAMES[0])
    (tmp_path / "w.raw").unlink()
    assert refusal(tmp_path / "w.mhd") == "its data file w.raw is missing; put it beside the header"
    (tmp_path / "v.raw").write_bytes(FRAMES[0].tobytes())
    np.testing.assert_array_equal(read_volume(text).array, FRAMES[0])


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("folder", ["direction", "zero spacing"])
def test_the_path_of_a_truncated_file_is_not_taken_for_the_fault(tmp_path, folder, extension):
    path = tmp_path / folder / f"direction spacing{extension}"
    path.parent.mkdir()
    write_volume(noise_volume(), path)
    path.write_bytes(path.read_bytes()[:-400])
    assert "truncated" in refusal(path)
    shutil.rmtree(path.parent)
