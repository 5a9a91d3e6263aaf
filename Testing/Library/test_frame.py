"""The frame around the library: what is listed must match what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.runtime.resources import SUMS, resource

ROOT = Path(__file__).parents[2]
LISTED = re.search(
    r"set\(CrossKEYLib_SCRIPTS\s+(.*?)\)", (ROOT / "CrossKEYLib/CMakeLists.txt").read_text(), re.S
)


def test_cmake_lists_every_library_file():
    assert LISTED
    on_disk = {p.relative_to(ROOT).as_posix() for p in (ROOT / "CrossKEYLib").rglob("*.py")}
    assert sorted(LISTED[1].split()) == sorted(on_disk)


def test_extension_metadata_is_complete():
    text = (ROOT / "CMakeLists.txt").read_text()
    for key in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"):
        assert re.search(rf'set\(EXTENSION_{key} "[^"]+"\)', text)
    assert 'set(EXTENSION_DEPENDS "PyTorch")' in text
    assert "project(CrossKEY)" in text


def test_pins_agree_with_the_lower_bounds():
    """The tested torch is the same everywhere, and each dependency has a tested version."""
    project = (ROOT / "pyproject.toml").read_text()
    pins = (ROOT / "requirements.lock").read_text().lower()
    block = re.search(r"^dependencies = \[(.*?)^\]", project, re.S | re.M)
    assert block
    for name in re.findall(r'"([A-Za-z]+)>=', block[1]):
        assert name == "torch" or f"\n{name.lower()}==" in pins
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()
    assert "\ntorch==" not in pins


def test_resource_is_found_and_a_missing_one_is_named():
    assert resource("Models") == ROOT / "Resources" / "Models"
    with pytest.raises(InputError, match=r"'Models/none\.pt' is missing; install crosskey again"):
        resource("Models/none.pt")


def test_every_bundled_model_is_small_listed_and_as_listed():
    folder = ROOT / "Resources" / "Models"
    models = sorted(folder.glob("*.pt"))
    listed = (folder / SUMS).read_text().splitlines()
    assert [line.split()[1] for line in listed] == [path.name for path in models]
    for path in models:
        assert resource(f"Models/{path.name}") == path  # else it says that the file is damaged
        assert path.stat().st_size <= 20e6
        assert f"## {path.name}" in (folder / "README.md").read_text()  # its card


def test_a_damaged_model_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "Resources" / "Models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(
        "CrossKEYLib.runtime.resources.__file__", str(tmp_path / "CrossKEYLib" / "runtime" / "r.py")
    )
    for name in (SUMS, "uae.pt"):
        (folder / name).write_bytes((ROOT / "Resources" / "Models" / name).read_bytes())
    assert resource("Models/uae.pt") == folder / "uae.pt"
    data = bytearray((folder / "uae.pt").read_bytes())
    data[len(data) // 2] ^= 1  # a single bit of the weights, which would load
    (folder / "uae.pt").write_bytes(data)
    with pytest.raises(InputError, match=r"'Models/uae\.pt' is damaged; install crosskey again"):
        resource("Models/uae.pt")


def test_resource_in_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "CrossKEYLib" / "Resources" / "Models").mkdir(parents=True)
    monkeypatch.setattr(
        "CrossKEYLib.runtime.resources.__file__", str(tmp_path / "CrossKEYLib" / "runtime" / "r.py")
    )
    assert resource("Models") == tmp_path / "CrossKEYLib" / "Resources" / "Models"
