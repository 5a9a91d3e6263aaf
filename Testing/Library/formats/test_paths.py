"""Paths that are not UTF-8 text: ITK ends the process over them, so it must not see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from phantoms.dicom import write_slices
from phantoms.volumes import SHAPE, matrix_of, noise_volume

from CrossKEYLib import cli
from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.transforms import read_transform, write_transform
from CrossKEYLib.formats.volumes import read_volume, write_volume

LATIN = os.fsdecode("Günther".encode("latin-1"))
ROOT = Path(__file__).parents[3]


@pytest.fixture
def latin(tmp_path):
    folder = tmp_path / LATIN
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    return folder


@pytest.mark.parametrize("extension", [".nii", ".nrrd", ".mha"])
def test_images(tmp_path, latin, extension):
    write_volume(noise_volume(), tmp_path / f"v{extension}")
    path = latin / f"v{extension}"
    path.write_bytes((tmp_path / f"v{extension}").read_bytes())
    if extension == ".nii":  # ITK has no part in reading it
        np.testing.assert_array_equal(read_volume(path).array, noise_volume().array)
    else:
        with pytest.raises(InputError, match=r"G\\xfcnther.*is not UTF-8 text; rename it"):
            read_volume(path)
    with pytest.raises(InputError, match=r"cannot write .*G\\xfcnther.*not UTF-8"):
        write_volume(noise_volume(), latin / f"w{extension}")
    assert sorted(os.listdir(latin)) == [path.name]


def test_dicom_folders_and_slices(tmp_path, latin):
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    write_slices(latin, array, matrix_of("ras"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_volume(latin)
    first, *_ = write_slices(tmp_path / "d", array, matrix_of("ras"))
    first.rename(first.with_name(LATIN + ".dcm"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_volume(tmp_path / "d")


def test_transforms_and_the_command(tmp_path, latin, capsys):
    write_transform(np.eye(4), latin / "t.tfm")  # written by Python, which takes any name
    with pytest.raises(InputError, match="not UTF-8"):
        read_transform(latin / "t.tfm")
    write_volume(noise_volume(), tmp_path / "v.nrrd")
    image = (tmp_path / "v.nrrd").rename(latin / "v.nrrd")
    output = tmp_path / "k.mrk.json"
    arguments = ["keypoints", "--image", str(image), "--output", str(output)]
    assert cli.main(arguments) == 2
    assert "rename it" in capsys.readouterr().err
    assert not output.exists()


def test_utf8_names_in_a_plain_c_locale(tmp_path):
    path = tmp_path / "Günther Ærø 脳" / "préop é.nrrd"
    path.parent.mkdir()
    write_volume(noise_volume(), path)
    code = (
        "import sys; from CrossKEYLib.formats.volumes import read_volume;"
        "print(read_volume(sys.argv[1]).shape)"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, **plain, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(SHAPE), "")
