"""Any geometry through any format: read, moved by a transform file, written back, to 1e-4 mm.

The files are made by nibabel, by pydicom and by hand, so that a fault that reading and writing
share would show.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms.dicom import write_slices
from scipy.spatial.transform import Rotation

from CrossKEYLib.formats.transforms import read_transform, write_transform
from CrossKEYLib.formats.volumes import read_volume, write_volume
from CrossKEYLib.geometry.transform import Matrix

SHAPE = (9, 10, 12)  # (K, J, I)
SAMPLES = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
CORNERS = np.array([[*ijk, 1] for ijk in itertools.product(*[(0, n - 1) for n in SHAPE[::-1]])]).T
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CLOSE_MM = 1e-4
ARGUMENTS = {"max_examples": 25, "deadline": None, "derandomize": True}

angle = st.floats(-180, 180)
position = st.floats(-300, 300)


@st.composite
def geometries(draw: st.DrawFn, shear: bool = True, upright: bool = True) -> Matrix:
    """Index to RAS mm: any axes in any order and direction, spacing, shear and origin."""
    turn = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)], degrees=True).as_matrix()
    axes = np.eye(3)[list(draw(st.permutations(range(3))))]
    axes = turn @ axes @ np.diag([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    if not upright and np.linalg.det(axes) < 0:  # slices are stacked along their normal
        axes[:, 2] *= -1
    lean = np.eye(3)
    if shear:
        lean[0, 2], lean[1, 2] = draw(st.floats(-0.5, 0.5)), draw(st.floats(-0.5, 0.5))
        lean[0, 1] = draw(st.floats(-0.5, 0.5)) if upright else 0.0
    matrix = np.eye(4)
    matrix[:3, :3] = axes @ lean @ np.diag([draw(st.floats(0.2, 5)) for _ in range(3)])
    matrix[:3, 3] = [draw(position) for _ in range(3)]
    return matrix


@st.composite
def motions(draw: st.DrawFn) -> Matrix:
    matrix = np.eye(4)
    turns = [draw(angle) for _ in range(3)]
    matrix[:3, :3] = Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
    matrix[:3, 3] = [draw(position) for _ in range(3)]
    return matrix


def apart(found: Matrix, expected: Matrix) -> float:
    """Distance (mm) between where two matrices put the corners, at most."""
    return float(np.linalg.norm((found - expected) @ CORNERS, axis=0).max())


def check(made: Path, expected: Matrix, motion: Matrix, extensions: list[str]) -> None:
    """What was made lies where it should, also after a motion, whatever it is written to."""
    folder = made.parent
    volume = read_volume(made)
    np.testing.assert_array_equal(volume.array, SAMPLES)
    assert apart(volume.ijk_to_ras, expected) < CLOSE_MM
    write_transform(motion, folder / "t.tfm")
    moved = volume.moved(read_transform(folder / "t.tfm"))
    assert apart(moved.ijk_to_ras, motion @ expected) < CLOSE_MM
    for extension in extensions:
        write_volume(moved, folder / f"back{extension}")
        back = read_volume(folder / f"back{extension}")
        np.testing.assert_array_equal(back.array, SAMPLES)
        assert apart(back.ijk_to_ras, motion @ expected) < CLOSE_MM


def nifti(path: Path, matrix: Matrix, form: str) -> Path:
    kind = nib.Nifti2Image if form == "nifti-2" else nib.Nifti1Image
    image = kind(SAMPLES.T, None)
    if form == "qform":
        image.set_qform(matrix, 1)
    else:
        image.set_sform(matrix, 1)
        image.header["pixdim"][1:4] = np.linalg.norm(matrix[:3, :3], axis=0)
    nib.save(image, path)
    return path


@settings(**ARGUMENTS)
@given(geometries(), motions(), st.sampled_from([".nii", ".nii.gz"]))
def test_nifti_with_shear(matrix, motion, extension):
    with tempfile.TemporaryDirectory() as folder:
        for form in ("sform", "nifti-2"):
            check(nifti(Path(folder) / f"v{extension}", matrix, form), matrix, motion, [".nrrd"])


@settings(**ARGUMENTS)
@given(geometries(shear=False), motions())
def test_nifti_and_back(matrix, motion):
    with tempfile.TemporaryDirectory() as folder:
        for form in ("sform", "qform"):
            made = nifti(Path(folder) / "v.nii", matrix, form)
            stated = matrix
            if form == "qform":  # quaternions in float32 hold half turns to 3e-4 only
                stated = nib.load(made).get_qform()
                assert apart(stated, matrix) < 0.05
            check(made, stated, motion, [".nii", ".nii.gz"])


@settings(**ARGUMENTS)
@given(geometries(), motions())
def test_nrrd_and_metaimage(matrix, motion):
    lps = LPS_RAS @ matrix
    vectors = " ".join("(" + ",".join(f"{x:.17g}" for x in axis) + ")" for axis in lps[:3, :3].T)
    origin = ",".join(f"{x:.17g}" for x in lps[:3, 3])
    head = (
        "NRRD0005\ntype: float\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, SHAPE[::-1]))}\nspace directions: {vectors}\n"
        f"space origin: ({origin})\nencoding: raw\nendian: little\n\n"
    )
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    rows = {  # rows of TransformMatrix are the axes
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "TransformMatrix": " ".join(f"{x:.17g}" for x in (lps[:3, :3] / spacing).T.ravel()),
        "Offset": " ".join(f"{x:.17g}" for x in lps[:3, 3]),
        "ElementSpacing": " ".join(f"{x:.17g}" for x in spacing),
        "DimSize": " ".join(map(str, SHAPE[::-1])),
        "ElementType": "MET_FLOAT",
        "ElementDataFile": "LOCAL",
    }
    meta = "".join(f"{key} = {value}\n" for key, value in rows.items())
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("v.nrrd", head), ("v.mha", meta)):
            path = Path(folder) / name
            path.write_bytes(text.encode() + SAMPLES.tobytes())
            check(path, matrix, motion, [".nrrd", ".mha"])


@settings(**ARGUMENTS)
@given(geometries(upright=False), motions())
def test_dicom_with_a_tilted_gantry(matrix, motion):
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series"
        write_slices(series, SAMPLES, LPS_RAS @ matrix)
        check(series, matrix, motion, [".nrrd"])


def test_the_check_would_notice() -> None:
    matrix = np.diag([1.0, 1.0, 1.0, 1.0])
    off = matrix.copy()
    off[0, 0] += 2 * CLOSE_MM / (SHAPE[2] - 1)
    assert apart(off, matrix) > CLOSE_MM
