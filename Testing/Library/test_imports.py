"""The shape of the library, read from its source: rings, direction of imports, file sizes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "CrossKEYLib"
FILES = sorted(LIBRARY.rglob("*.py"))

# Data flow: a file imports only what stands before it. A package is one entry, but for those of
# its files that are listed by themselves.
ORDER = [
    "errors",
    "runtime",
    "allocator",
    "precision",
    "writing",
    "outputs",
    "resources",
    "transform",
    "config",
    "volume",
    "headers",
    "dicom_series",
    "files",
    "hounsfield",
    "foreground",
    "plausibility",
    "keypoints",
    "landmark_files",
    "synthesis",
    "sift3d",
    "heatmap",
    "descriptors",
    "training.losses",
    "training.checkpoint",
    "training.pairs",
    "candidates",
    "model",
    "universal",
    "matching",
    "estimation",
    "local_affine",
    "fixed_point",
    "refinement",
    "structure",
    "lc2",
    "confidence",
    "trust",
    "landmarks",
    "both_ways",
    "atlas",
    "training",
    "adaptation",
    "attempt",
    "registration",
    "evaluation",
    "figures",
    "scene",
    "demo",
    "embedded",
    "worker",
    "progress",
    "commands",
    "cli",
    "__main__",
]


def rank(parts: Sequence[str]) -> int | None:
    """Place in ORDER of a dotted name within the library, None where it is not in it."""
    for entry in (".".join(parts[:2]), parts[0]):
        if entry in ORDER:
            return ORDER.index(entry)
    return None


def name_of(path: Path) -> str:
    return path.relative_to(LIBRARY).as_posix()


def imported_at_module_level(path: Path) -> list[str]:
    """Absolute dotted names; imports within functions and for type checkers do not count."""
    package = ["CrossKEYLib", *path.relative_to(LIBRARY).parent.parts]
    names = []
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
        pending += ast.iter_child_nodes(node)
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_library_is_free_of_slicer(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
    assert not roots & {"slicer", "qt", "ctk", "vtk", "vtkmodules", "CrossKEY", "CrossKEYSlicer"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_follow_the_data(path):
    place = path.relative_to(LIBRARY).with_suffix("").parts
    if place == ("__init__",):
        pytest.skip("the public names come from everywhere")
    own = rank(place)
    assert own is not None, f"put {place[0]!r} into ORDER where the data reach it"
    for name in imported_at_module_level(path):
        parts = name.split(".")
        if parts[0] != "CrossKEYLib" or len(parts) < 2 or parts[1] == place[0]:
            continue
        other = rank(parts[1:])
        assert other is None or other < own, f"{name} comes later in the flow of data"


@pytest.mark.parametrize("package", sorted(p.parent for p in FILES if p.name == "__init__.py"))
def test_no_cycle_within_a_package(package):
    prefix = ".".join(["CrossKEYLib", *package.relative_to(LIBRARY).parts])
    modules = {path.stem: path for path in package.glob("*.py") if path.stem != "__init__"}
    needs = {
        stem: {
            name.removeprefix(prefix + ".").split(".")[0]
            for name in imported_at_module_level(path)
            if name.startswith(prefix + ".")
        }
        & modules.keys()
        for stem, path in modules.items()
    }
    while needs:
        free = [stem for stem, others in needs.items() if not others & needs.keys()]
        assert free, f"these import each other in a circle: {sorted(needs)}"
        for stem in free:
            del needs[stem]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_size_and_name(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    special = {"__init__", "__main__"}
    assert path.stem in special or path.stem not in sys.stdlib_module_names
