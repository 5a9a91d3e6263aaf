"""Bad images: each is refused with one clear line, and nothing else reaches stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms.volumes import SHAPE, nifti, noise_volume, refusal

from CrossKEYLib.formats.volumes import write_volume

FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha"]


def meta(path: Path, **keys: str) -> Path:
    """A MetaImage file with header keys replaced; an empty value leaves the key out."""
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": "15 12 9",
        "ElementType": "MET_FLOAT",
    } | keys
    lines = [f"{key} = {value}" for key, value in header.items() if value]
    text = "\n".join([*lines, "ElementDataFile = LOCAL\n"])
    path.write_bytes(text.encode() + noise_volume().array.numpy().tobytes())
    return path


def test_missing_empty_and_unknown(tmp_path):
    assert refusal(tmp_path / "no.nii") == "no such file or folder; check the path"
    (tmp_path / "e.nii.gz").touch()
    assert "the file is empty" in refusal(tmp_path / "e.nii.gz")
    (tmp_path / "v.jpg").write_text("x")
    assert "unknown image type; expected .nii" in refusal(tmp_path / "v.jpg")
    (tmp_path / "j.nii").write_bytes(b"not an image" * 50)
    assert "not a NIfTI file" in refusal(tmp_path / "j.nii")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("extension", FORMATS)
def test_truncated(tmp_path, capfd, extension, share):
    path = tmp_path / f"v{extension}"
    write_volume(noise_volume(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(path).endswith("copy or export it again")
    assert capfd.readouterr() == ("", "")


def test_damaged_gzip(tmp_path):
    path = tmp_path / "v.nii.gz"
    write_volume(noise_volume(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "compressed data are damaged" in refusal(path)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.ones((20, 20)), "a 2D image; a 3D volume is needed"),
        (np.ones((1, 20, 20)), "only 20 x 20 x 1 voxels"),
        (np.ones((20, 7, 20)), "only 20 x 7 x 20 voxels"),
        (np.zeros(SHAPE), "all voxels are zero"),
        (np.full(SHAPE, 3.5), "all voxels have one value (3.5)"),
        (np.where(np.arange(SHAPE[2]) == 1, np.nan, np.ones(SHAPE)), "108 voxels are NaN or inf"),
        (np.where(np.arange(SHAPE[2]) == 1, np.inf, np.ones(SHAPE)), "108 voxels are NaN or inf"),
        (np.where(np.arange(SHAPE[2]) == 1, 1e300, np.ones(SHAPE)), "108 voxels are NaN or inf"),
    ],
)
@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_no_image_inside(tmp_path, array, text, extension):
    path = tmp_path / f"v{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    assert text in refusal(path)


def test_4d_colour_and_complex(tmp_path):
    grey = sitk.GetImageFromArray(noise_volume().array.numpy())
    sitk.WriteImage(sitk.JoinSeries([grey] * 3), str(tmp_path / "series.nii.gz"))
    assert "a series of 3 volumes (4D)" in refusal(tmp_path / "series.nii.gz")
    byte = sitk.Cast(grey, sitk.sitkUInt8)
    for name in ("rgb.nii.gz", "rgb.nrrd", "rgb.mha"):
        sitk.WriteImage(sitk.Compose([byte] * 3), str(tmp_path / name))
        assert "3 values per voxel (colour or vectors)" in refusal(tmp_path / name)
    sitk.WriteImage(sitk.RealAndImaginaryToComplex(grey, grey), str(tmp_path / "c.nrrd"))
    assert refusal(tmp_path / "c.nrrd")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"codes": ("<2h", 252, [0, 0])}, "the header states no orientation (sform_code"),
        ({"pixdim": ("<3f", 80, [0, 1, 1])}, "voxel spacing is 0 x 1 x 1 mm"),
        ({"pixdim": ("<3f", 80, [np.nan, 1, 1])}, "voxel spacing is nan x 1 x 1 mm"),
        ({"pixdim": ("<3f", 80, [1, 2, 1]), "q": ("<h", 252, 0)}, "contradicts its orientation"),
        ({"codes": ("<2h", 252, [0, 1]), "rows": ("<12f", 280, [0] * 12)}, "is singular"),
        ({"codes": ("<2h", 252, [0, 1]), "rows": ("<f", 280, np.nan)}, "is singular"),
        ({"codes": ("<2h", 252, [1, 0]), "pix": ("<3f", 80, [30, 1, 1])}, "expected 0.01 to 20 mm"),
        ({"codes": ("<2h", 252, [1, 0]), "pix": ("<3f", 80, [1, 1e-3, 1])}, "expected 0.01 to 20"),
        ({"dim": ("<h", 42, -3)}, "impossible dimensions"),
        ({"dim": ("<h", 42, 3000)}, "truncated"),
    ],
)
def test_nifti_geometry_that_is_refused(tmp_path, capfd, fields, text):
    assert text in refusal(nifti(tmp_path / "v.nii", **fields))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"TransformMatrix": ""}, "states no orientation or spacing ('TransformMatrix'"),
        ({"ElementSpacing": ""}, "states no orientation or spacing ('ElementSpacing'"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "orientation is singular"),
        ({"ElementSpacing": "0 1 1"}, "voxel spacing is zero"),
        ({"ElementSpacing": "1 1 200"}, "1 x 1 x 200 mm, expected 0.01 to 20 mm"),
    ],
)
def test_meta_geometry_that_is_refused(tmp_path, keys, text):
    assert text in refusal(meta(tmp_path / "v.mha", **keys))


def test_nrrd_without_orientation(tmp_path):
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 15 12 9\nencoding: raw\nendian: little\n"
    data = noise_volume().array.numpy().tobytes()
    (tmp_path / "v.nrrd").write_bytes(header.encode() + b"\n" + data)
    assert "states no orientation" in refusal(tmp_path / "v.nrrd")
