from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.atomic import check_writable, whole, write_json


def test_file_appears_whole(tmp_path):
    path = tmp_path / "a.nii.gz"
    with whole(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupted():
        with whole(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full (Linux)")
def test_full_disk(tmp_path):
    """/dev/full makes the kernel report ENOSPC, as a full disk does."""

    def fill():
        with whole(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            Path("/dev/full").write_text("x")

    with pytest.raises(InputError, match=r"a\.json: the disk is full; free some space"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [check_writable, lambda path: write_json({}, path)])
def test_impossible_places(tmp_path, write):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="its folder does not exist; create the folder first"):
        write(tmp_path / "missing" / "a.json")
    with pytest.raises(InputError, match="is a file, not a folder"):
        write(tmp_path / "file" / "a.json")
    with pytest.raises(InputError, match="not a plain file"):
        write(tmp_path)
    with pytest.raises(InputError, match="not a plain file"):
        write("/dev/null")
    with pytest.raises(InputError, match="the name is too long"):
        write(tmp_path / ("a." + "b" * 300))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [check_writable, lambda path: write_json({}, path)])
def test_no_permission(tmp_path, write, monkeypatch):
    """The refusal of a real system call; root passes a read-only folder, so it is raised here."""

    def refused(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(InputError, match=r"a\.json: no permission; choose another folder"):
        write(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_check_writable_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "a.tfm")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.tfm").write_text("old")
    check_writable(tmp_path / "a.tfm")
    assert (tmp_path / "a.tfm").read_text() == "old"


def test_json_of_arrays_and_numbers(tmp_path):
    path = tmp_path / "é.json"
    report = {
        "matrix": np.eye(2),
        "points": torch.arange(3.0),
        "n": np.int64(4),
        "ok": np.bool_(True),
        "none": [math.nan, math.inf, None],
        "path": Path("ü"),
        "pair": (1, 2.5),
    }
    write_json(report, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "matrix": [[1, 0], [0, 1]],
        "points": [0, 1, 2],
        "n": 4,
        "ok": True,
        "none": [None, None, None],
        "path": "ü",
        "pair": [1, 2.5],
    }
