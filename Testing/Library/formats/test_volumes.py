from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms.volumes import ORIENTATIONS, SHAPE, matrix_of, nifti, noise_volume

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.formats.options import ReadOptions
from CrossKEYLib.formats.transforms import read_transform, write_transform
from CrossKEYLib.formats.volumes import read_mask, read_volume, write_volume
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume

FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha"]
CORNERS = [(0, 0, 0), (14, 0, 0), (0, 11, 0), (0, 0, 8), (3, 7, 5)]
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]


def test_a_mask_may_fill_its_grid_and_have_one_slice(tmp_path):
    labels = sitk.GetImageFromArray(np.full((1, 9, 9), 7, "u1"))
    sitk.WriteImage(labels, str(tmp_path / "m.nrrd"))
    mask = read_mask(tmp_path / "m.nrrd")
    assert mask.shape == (1, 9, 9)
    assert mask.array.unique().tolist() == [1]


# Round trips and positions


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("extension", FORMATS)
def test_round_trip(tmp_path, extension, orientation):
    volume = noise_volume(orientation)
    write_volume(volume, tmp_path / f"v{extension}")
    back = read_volume(tmp_path / f"v{extension}")
    assert torch.equal(back.array, volume.array)
    np.testing.assert_allclose(back.ijk_to_ras, volume.ijk_to_ras, atol=2e-5)  # NIfTI: float32
    assert [p.name for p in tmp_path.iterdir()] == [f"v{extension}"]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("extension", FORMATS)
def test_world_is_itk_world_in_ras(tmp_path, extension, orientation):
    path = tmp_path / f"v{extension}"
    image = sitk.GetImageFromArray(noise_volume().array.numpy())
    image.SetDirection(ORIENTATIONS[orientation].ravel().tolist())
    image.SetSpacing((0.7, 1.5, 2.5))
    image.SetOrigin((12.5, -80.25, 33.0))
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    for index in CORNERS:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        got = volume.ijk_to_ras @ [*index, 1]
        np.testing.assert_allclose(got[:3], [-x, -y, z], atol=5e-5)
        assert volume.array[index[::-1]].item() == pytest.approx(image[index])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_sample_types(tmp_path, dtype, extension):
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120
    path = tmp_path / f"v{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(array.astype(dtype)), str(path))
    assert torch.equal(read_volume(path).array, torch.from_numpy(array).float())


@pytest.mark.parametrize("extension", FORMATS)
def test_non_ascii_path(tmp_path, extension):
    path = tmp_path / "Günther Ærø 脳" / f"préop é{extension}"
    path.parent.mkdir()
    write_volume(noise_volume(), path)
    assert torch.equal(read_volume(path).array, noise_volume().array)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_sheared_nifti_is_read_exactly(tmp_path, extension):
    sheared = matrix_of("oblique")
    sheared[:3, :3] @= np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]])
    plain = nifti(
        tmp_path / "v.nii",
        pixdim=("<3f", 80, np.linalg.norm(sheared[:3, :3], axis=0)),
        codes=("<2h", 252, [0, 1]),
        rows=("<12f", 280, sheared[:3].ravel()),
    )
    path = tmp_path / f"w{extension}"
    copy_packed(plain, path)
    np.testing.assert_allclose(read_volume(path).ijk_to_ras, sheared, atol=1e-5)


def copy_packed(plain: Path, path: Path) -> None:
    data = plain.read_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_shear_survives_nrrd_and_is_refused_for_nifti(tmp_path):
    matrix = matrix_of("ras")
    matrix[0, 1] = 0.3
    volume = Volume(noise_volume().array, matrix)
    write_volume(volume, tmp_path / "v.nrrd")
    np.testing.assert_allclose(read_volume(tmp_path / "v.nrrd").ijk_to_ras, matrix, atol=1e-9)
    with pytest.raises(InputError, match=r"cannot hold shear; write \.nrrd"):
        write_volume(volume, tmp_path / "v.nii")
    assert not (tmp_path / "v.nii").exists()


def test_of_two_stated_orientations_the_one_slicer_uses_counts(tmp_path):
    path = nifti(tmp_path / "v.nii", codes=("<2h", 252, [1, 2]), shift=("<3f", 268, [5, 6, 7]))
    image = sitk.ReadImage(str(path))
    with pytest.warns(InputWarning, match=r"sform and qform .* \(up to 10\.5 mm\); the qform"):
        taken = read_volume(path).ijk_to_ras
    np.testing.assert_allclose(taken[:3, 3], np.array(image.GetOrigin()) * [-1, -1, 1])
    np.testing.assert_allclose(taken[:3, 3], [5, 6, 7])
    with pytest.warns(InputWarning, match="the sform is used, as asked"):
        other = read_volume(path, ReadOptions(orientation="sform")).ijk_to_ras
    np.testing.assert_allclose(other[:3, 3], [0, 0, 0])


def test_big_endian_nifti(tmp_path):
    little = nifti(tmp_path / "v.nii", noise_volume().array.numpy()).read_bytes()
    record = [("i4", 0, 1), ("i2", 40, 8), ("i2", 68, 4), ("f4", 76, 8), ("f4", 108, 3)]
    record += [("i2", 252, 2), ("f4", 256, 18)]
    raw = bytearray(little)
    for kind, offset, count in record:
        values = np.frombuffer(little, "<" + kind, count, offset)
        size = values.itemsize * count
        raw[offset : offset + size] = values.astype(">" + kind).tobytes()
    raw[352:] = np.frombuffer(little[352:], "<f4").astype(">f4").tobytes()
    (tmp_path / "big.nii").write_bytes(raw)
    little_read, big_read = read_volume(tmp_path / "v.nii"), read_volume(tmp_path / "big.nii")
    assert torch.equal(little_read.array, big_read.array)
    np.testing.assert_array_equal(little_read.ijk_to_ras, big_read.ijk_to_ras)


def test_nii_gz_is_not_confused_with_nii_beside_it(tmp_path):
    write_volume(noise_volume(seed=1), tmp_path / "v.nii")
    write_volume(noise_volume(seed=2), tmp_path / "v.nii.gz")
    assert torch.equal(read_volume(tmp_path / "v.nii.gz").array, noise_volume(seed=2).array)


def test_4d_of_one_volume(tmp_path):
    path = tmp_path / "v.nii.gz"
    image = sitk.JoinSeries([sitk.GetImageFromArray(noise_volume().array.numpy())])
    sitk.WriteImage(image, str(path))
    assert read_volume(path).shape == SHAPE


def test_volume_read_and_write_methods(tmp_path):
    noise_volume().write(str(tmp_path / "v.nrrd"))
    assert torch.equal(Volume.read(str(tmp_path / "v.nrrd")).array, noise_volume().array)


# Writing


def test_write_refuses_unknown_extension(tmp_path):
    with pytest.raises(InputError, match=r"expected a name ending in \.nii"):
        write_volume(noise_volume(), tmp_path / "v.mhd")
    assert not list(tmp_path.iterdir())


def test_write_that_does_not_fit_leaves_the_old_file(tmp_path):
    """A real limit on file size; ITK itself reports success for some of these formats."""
    code = """if True:
        import resource, sys
        import numpy as np, torch
        from CrossKEYLib.errors import InputError
        from CrossKEYLib.formats.volumes import write_volume
        from CrossKEYLib.geometry.volume import Volume

        volume = Volume(torch.rand(20, 20, 20), np.eye(4))
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        for path in sys.argv[1:]:
            try:
                write_volume(volume, path)
            except InputError as error:
                print(error)
    """
    paths = [tmp_path / f"v{extension}" for extension in FORMATS]
    for path in paths:
        path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"cannot write {path}: the data did not fit (disk full")
        assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(paths)


# Transforms

RIGID = transform.about([10, -20, 30], ORIENTATIONS["oblique"], [3.123456789012345, -1 / 3, 1e-7])
AFFINE = RIGID @ np.diag([1.1, 0.9, 1.05, 1.0])


@pytest.mark.parametrize("matrix", [np.eye(4), RIGID, AFFINE], ids=["identity", "rigid", "affine"])
def test_transform_round_trip_keeps_double_precision(tmp_path, matrix):
    write_transform(matrix, tmp_path / "t.tfm")
    np.testing.assert_allclose(read_transform(tmp_path / "t.tfm"), matrix, rtol=0, atol=1e-12)
    assert [p.name for p in tmp_path.iterdir()] == ["t.tfm"]


def test_transform_file_resamples_in_itk(tmp_path):
    """The file maps fixed LPS points to moving LPS points, as ITK's resampler wants."""
    write_transform(RIGID, tmp_path / "t.tfm")
    moving = np.array([7.0, 8.0, 9.0])
    fixed = RIGID[:3, :3] @ moving + RIGID[:3, 3]
    got = sitk.ReadTransform(str(tmp_path / "t.tfm")).TransformPoint((fixed * [-1, -1, 1]).tolist())
    np.testing.assert_allclose(got, moving * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("matrix", [RIGID, AFFINE], ids=["rigid", "affine"])
def test_slicer_loads_the_transform(tmp_path, mrml, matrix):
    path = tmp_path / "t.tfm"
    write_transform(matrix, path)
    scene = mrml.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    parent = node.GetMatrixTransformToParent()
    got = [[parent.GetElement(r, c) for c in range(4)] for r in range(4)]
    np.testing.assert_allclose(got, matrix, rtol=0, atol=1e-6)
    storage.SetFileName(str(tmp_path / "by_slicer.h5"))
    assert storage.WriteData(node)
    np.testing.assert_allclose(read_transform(tmp_path / "by_slicer.h5"), matrix, atol=1e-6)


def test_slicer_places_volumes_alike(tmp_path, mrml):
    """Slicer's own reader and ours give one world, so a transform means the same in both."""
    for orientation in ORIENTATIONS:
        for extension in FORMATS:
            path = tmp_path / f"{orientation}{extension}"
            write_volume(noise_volume(orientation), path)
            scene = mrml.vtkMRMLScene()
            node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
            storage.SetFileName(str(path))
            assert storage.ReadData(node)
            directions = np.zeros((3, 3))
            node.GetIJKToRASDirections(directions)
            matrix = transform.from_parts(directions * node.GetSpacing(), node.GetOrigin())
            # Slicer turns left-handed volumes round, so compare what lies at each world point
            loaded = Volume(torch.from_numpy(mrml.util.arrayFromVolume(node).copy()), matrix)
            volume = read_volume(path)
            points = Grid.of(volume).points()
            torch.testing.assert_close(loaded.sample(points), volume.array, rtol=0, atol=0.02)


@pytest.mark.parametrize("extension", [".tfm", ".txt", ".h5", ".mat"])
def test_reads_every_linear_kind(tmp_path, extension):
    euler = sitk.Euler3DTransform((5, 6, 7), 0.1, -0.2, 0.3, (1, 2, 3))
    versor = sitk.VersorRigid3DTransform((0, 0, 1), 0.4, (1, 2, 3), (9, 8, 7))
    affine = sitk.AffineTransform([1.1, 0.1, 0, 0, 0.9, 0, 0.2, 0, 1], [4, 5, 6], [1, 1, 1])
    both = sitk.CompositeTransform([euler, affine])
    for stored in (euler, versor, affine, sitk.TranslationTransform(3, (1, 2, 3)), both):
        path = tmp_path / f"t{extension}"
        if stored is both and extension == ".mat":
            continue  # that format holds one transform
        sitk.WriteTransform(stored, str(path))
        matrix = read_transform(path)
        fixed = np.array([11.0, -12.0, 13.0])
        moving = np.array(stored.TransformPoint((fixed * [-1, -1, 1]).tolist())) * [-1, -1, 1]
        np.testing.assert_allclose(matrix[:3, :3] @ moving + matrix[:3, 3], fixed, atol=1e-9)


def test_bad_transforms(tmp_path, capfd):
    path = tmp_path / "t.tfm"
    with pytest.raises(InputError, match="no such transform file"):
        read_transform(path)
    path.write_text("garbage")
    with pytest.raises(InputError, match="no readable ITK transform"):
        read_transform(path)
    sitk.WriteTransform(sitk.Euler2DTransform(), str(path))
    with pytest.raises(InputError, match="expected a rigid or affine 3D transform"):
        read_transform(path)
    sitk.WriteTransform(sitk.BSplineTransform(3), str(path))
    with pytest.raises(InputError, match="expected a rigid or affine 3D transform"):
        read_transform(path)
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1, 0, 0, 0, 1, 0, 0, 0, 0))
    sitk.WriteTransform(flat, str(path))
    with pytest.raises(InputError, match="singular"):
        read_transform(path)
    with pytest.raises(InputError, match="expected a transform file ending in"):
        read_transform(Path(__file__))
    for matrix, text in ((np.zeros((4, 4)), "singular"), (np.full((4, 4), np.nan), "not a finite")):
        with pytest.raises(InputError, match=text):
            write_transform(matrix, tmp_path / "new.tfm")
    with pytest.raises(InputError, match=r"ending in \.tfm"):
        write_transform(np.eye(4), tmp_path / "new.nii")
    assert not list(tmp_path.glob("new*"))
    assert capfd.readouterr() == ("", "")
