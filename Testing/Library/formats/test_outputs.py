"""Output files of one run appear together or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.outputs import check_file, check_folder, together


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_all_appear_at_the_end(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with together() as stage:
        stage(tmp_path / "a.txt").write_text("new")
        stage(tmp_path / "deep" / "er" / "b.txt").write_text("b")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert everything(tmp_path) == ["a.txt", "deep", "deep/er", "deep/er/b.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_failed_run(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def fail():
        with together() as stage:
            stage(tmp_path / "a.txt").write_text("new")
            stage(tmp_path / "made" / "b.txt").write_text("b")
            raise error

    with pytest.raises(error):
        fail()
    assert everything(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_that_cannot_take_its_place_takes_the_others_back(tmp_path):
    (tmp_path / "b.txt").mkdir()

    def fail():
        with together() as stage:
            stage(tmp_path / "a.txt").write_text("a")
            stage(tmp_path / "b.txt").write_text("b")

    with pytest.raises(InputError, match=r"cannot write .*b\.txt"):
        fail()
    assert everything(tmp_path) == ["b.txt"]


def test_messages_name_the_file_that_was_asked_for(tmp_path):
    def fail():
        with together() as stage:
            raise InputError(f"cannot write {stage(tmp_path / 'a.tfm')}: full")

    with pytest.raises(InputError) as caught:
        fail()
    assert str(caught.value) == f"cannot write {tmp_path / 'a.tfm'}: full"


def test_checks_leave_no_trace(tmp_path):
    check_file(None, (".tfm",))
    check_file(tmp_path / "a.TFM", (".tfm", ".txt"))
    check_folder(None)
    check_folder(tmp_path / "new" / "er")
    assert everything(tmp_path) == []
    with pytest.raises(InputError, match=r"expected a name ending in \.tfm or \.txt"):
        check_file(tmp_path / "a.json", (".tfm", ".txt"))
    with pytest.raises(InputError, match="folder does not exist"):
        check_file(tmp_path / "none" / "a.tfm", (".tfm",))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; choose another folder"):
        check_folder(tmp_path / "file" / "figures")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden here")
def test_a_forbidden_folder_is_found_out(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_folder(tmp_path / "figures")
