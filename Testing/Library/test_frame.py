"""The frame around the library: what is listed must match what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.resources import resource

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


def test_resource_in_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "CrossKEYLib" / "Resources" / "Models").mkdir(parents=True)
    monkeypatch.setattr("CrossKEYLib.resources.__file__", str(tmp_path / "CrossKEYLib" / "r.py"))
    assert resource("Models") == tmp_path / "CrossKEYLib" / "Resources" / "Models"
