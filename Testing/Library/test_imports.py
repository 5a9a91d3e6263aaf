"""The structure of the library, read from its source: direction of imports, file sizes, names."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "CrossKEYLib"
FILES = sorted(LIBRARY.rglob("*.py"))

# A room is a folder, or a file of the root. It imports only rooms that stand before it.
ROOMS = [
    "errors",
    "config",
    "runtime",
    "geometry",
    "keypoints",
    "formats",
    "descriptors",
    "models",
    "synthesis",
    "estimation",
    "landmarks",
    "trust",
    "registration",
    "training",
    "training.patient",
    "training.universal",
    "training.published",
    "evaluation.peers",
    "evaluation",
    "figures",
    "demo",
    "worker",
    "commands",
    "cli",
    "__main__",
]

# Imports that run back, each with the reason why it may.
EXEMPT = {
    ("geometry.volume", "formats.volumes"): "Volume.read and Volume.write, imported when called",
}
PUBLIC = "__init__"  # the package itself: its public names come from everywhere


def module_of(path: Path) -> str:
    """Dotted name within the library, without ``__init__`` of a folder."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    folder = LIBRARY / Path(*module.split("."))
    return module if folder.is_dir() or "." not in module else module.rpartition(".")[0]


def imports_of(path: Path) -> set[str]:
    """Modules of the library that a file imports, wherever in it the statement stands."""
    package = ["CrossKEYLib", *path.relative_to(LIBRARY).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            root, _, rest = name.partition(".")
            if root == "CrossKEYLib":
                found.add(rest if rest in MODULES else rest.rpartition(".")[0] or PUBLIC)
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_library_is_free_of_slicer(path):
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
    assert not roots & {"slicer", "qt", "ctk", "vtk", "vtkmodules", "CrossKEY", "CrossKEYSlicer"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != PUBLIC])
def test_no_import_runs_back(module):
    own = room_of(module)
    assert own in ROOMS, f"put {own!r} into ROOMS where the data reach it"
    for other in imports_of(MODULES[module]):
        if (module, other) in EXEMPT or room_of(other) == own:
            continue
        assert other != PUBLIC, f"{module} imports the package that is built from it"
        assert ROOMS.index(room_of(other)) < ROOMS.index(own), f"{module} imports {other}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_within_a_room(room):
    modules = {name for name in MODULES if room_of(name) == room}
    needs = {name: (imports_of(MODULES[name]) & modules) - {name} for name in modules}
    while needs:
        free = [name for name, others in needs.items() if not others & needs.keys()]
        assert free, f"these import each other in a circle: {sorted(needs)}"
        for name in free:
            del needs[name]


def test_every_exemption_is_needed():
    for module, other in EXEMPT:
        assert other in imports_of(MODULES[module]), f"{module} no longer imports {other}"
        assert ROOMS.index(room_of(other)) >= ROOMS.index(room_of(module))


MODULE_OF_SLICER = sorted((LIBRARY.parent / "CrossKEY").rglob("*.py"))


@pytest.mark.parametrize("path", FILES + MODULE_OF_SLICER, ids=lambda path: path.stem)
def test_file_size_and_name(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    special = {"__init__", "__main__"}
    assert path.stem in special or path.stem not in sys.stdlib_module_names
