"""Bad images: each is refused with one clear line, and nothing else reaches stderr."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from phantoms.volumes import SHAPE, matrix_of, nifti, noise_volume, refusal
from scipy.spatial.transform import Rotation

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.formats.options import ReadOptions
from CrossKEYLib.formats.volumes import read_volume, write_volume

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
    assert "a sequence of 3 volumes; choose one with --frame" in refusal(tmp_path / "series.nii.gz")
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


def made_by_nibabel(path: Path, array: np.ndarray, unit: str = "mm", kind=nib.Nifti1Image) -> Path:
    image = kind(array, np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def test_nifti_2_complex_vectors_and_names_that_do_not_fit(tmp_path):
    array = noise_volume().array.numpy().T
    second = made_by_nibabel(tmp_path / "two.nii", array, kind=nib.Nifti2Image)
    np.testing.assert_array_equal(read_volume(second).array, noise_volume().array)
    assert "complex values" in refusal(made_by_nibabel(tmp_path / "c.nii", array.astype("c8")))
    vectors = np.stack([array] * 3, -1)[:, :, :, None]
    assert "3 values per voxel" in refusal(made_by_nibabel(tmp_path / "v.nii", vectors))
    # A plain file named .gz, and a packed one named .nii, hold what they hold
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(second.read_bytes())
    np.testing.assert_array_equal(read_volume(plain).array, noise_volume().array)
    packed = tmp_path / "packed.nii"
    packed.write_bytes(gzip.compress(second.read_bytes()))
    np.testing.assert_array_equal(read_volume(packed).array, noise_volume().array)


def test_scaled_samples(tmp_path):
    array = (np.arange(np.prod(SHAPE)).reshape(SHAPE[::-1]) % 500).astype(np.int16)
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "v.nii.gz")
    stored = nib.load(tmp_path / "v.nii.gz").get_fdata()
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nii.gz").array.numpy().T, stored)
    assert stored.min() < 0


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("micron", 1e-3)])
def test_nifti_units(tmp_path, unit, factor):
    array = noise_volume().array.numpy().T
    image = nib.Nifti1Image(array, np.diag([0.5, 0.6, 0.7, factor]) / factor)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "v.nii")
    with pytest.warns(InputWarning, match=f"lengths in {unit}; they were converted to mm"):
        spacing = read_volume(tmp_path / "v.nii").spacing_mm
    np.testing.assert_allclose(spacing, [0.5, 0.6, 0.7], rtol=1e-6)
    said = refusal(made_by_nibabel(tmp_path / "w.nii", array, unit))
    assert f"lengths in {unit}, which makes voxels of" in said
    made_by_nibabel(tmp_path / "x.nii", array, "unknown")
    np.testing.assert_allclose(read_volume(tmp_path / "x.nii").spacing_mm, 2)


@pytest.mark.parametrize("turn_deg", [0.0, 15.0])
def test_sform_and_qform_that_disagree(tmp_path, turn_deg):
    matrix, other = matrix_of("oblique"), matrix_of("oblique")
    other[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix() @ other[:3, :3]
    image = nib.Nifti1Image(noise_volume().array.numpy().T, None)
    image.set_sform(matrix, 1)
    image.set_qform(other, 1)
    nib.save(image, tmp_path / "v.nii.gz")
    if turn_deg == 0:
        np.testing.assert_allclose(read_volume(tmp_path / "v.nii.gz").ijk_to_ras, matrix, atol=1e-5)
        return
    with pytest.warns(InputWarning, match=r"sform and qform place .* as 3D Slicer does; the other"):
        slicer = read_volume(tmp_path / "v.nii.gz").ijk_to_ras
    shown = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    np.testing.assert_allclose(slicer[:3, 3], np.array(shown.GetOrigin()) * [-1, -1, 1], atol=1e-5)
    direction = np.array(shown.GetDirection()).reshape(3, 3) * shown.GetSpacing()
    np.testing.assert_allclose(slicer[:3, :3], np.diag([-1, -1, 1]) @ direction, atol=1e-5)
    for name, expected in (("sform", matrix), ("qform", other)):
        with pytest.warns(InputWarning, match=f"the {name} is used, as asked"):
            taken = read_volume(tmp_path / "v.nii.gz", ReadOptions(orientation=name))
        np.testing.assert_allclose(taken.ijk_to_ras, expected, atol=1e-5)


def test_orientation_of_another_name():
    with pytest.raises(InputError, match="expected sform or qform"):
        ReadOptions(orientation="both")
