"""What is installed with the extension, and what the extension index asks for."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import ROOT

STUB = Path(__file__).with_name("cmake")
INSTALLED = Path("lib/qt-scripted-modules")


def cmake() -> str:
    beside = shutil.which("cmake", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("cmake")
    if found is None:
        pytest.skip("cmake is not installed; pip install cmake")
    return found


def install(source: Path, build: Path) -> tuple[Path, dict[str, str]]:
    """Configure and install an extension; where its modules are then, and its description."""
    tool, prefix = cmake(), build / "installed"
    for command in (
        [tool, "-S", str(source), "-B", str(build), f"-DSlicer_DIR={STUB}", "-DBUILD_TESTING=ON"],
        [tool, "--install", str(build), "--prefix", str(prefix)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    lines = (build / "description.txt").read_text().splitlines()
    return prefix / INSTALLED, dict(line.split(" ", 1) for line in lines)


def expected() -> set[str]:
    """Every file that a running extension needs, as it lies under the installed folder."""
    needed = set()
    for top in (ROOT / "CrossKEY", ROOT):
        for pattern in ("CrossKEY.py", "CrossKEYSlicer/**/*.py", "CrossKEYLib/**/*.py"):
            needed |= {path.relative_to(top).as_posix() for path in top.glob(pattern)}
    for pattern in ("Resources/UI/*", "Resources/Icons/*"):
        module = ROOT / "CrossKEY"
        needed |= {path.relative_to(module).as_posix() for path in module.glob(pattern)}
    for pattern in ("Resources/Models/*", "Resources/SampleData/*"):
        needed |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    return {name for name in needed if "__pycache__" not in name}


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    return install(ROOT, tmp_path_factory.mktemp("build"))


def test_every_file_is_installed(installed):
    assert expected() == files_in(installed[0])
    assert len(expected()) > 80


def test_slicer_finds_the_module_where_it_looks(installed):
    """Slicer takes the files directly in qt-scripted-modules for modules and searches no folder."""
    folder = installed[0]
    assert [path.name for path in folder.glob("*.py")] == ["CrossKEY.py"]
    beside = {path.name for path in folder.iterdir() if path.is_dir()}
    assert beside == {"CrossKEYLib", "CrossKEYSlicer", "Resources"}


def test_the_stand_in_for_slicers_macro_honours_a_folder_of_its_own(tmp_path):
    """As the real macro does; with it nothing would be found, so the test above can fail."""
    source = copied(tmp_path)
    listing = source / "CrossKEY/CMakeLists.txt"
    text = listing.read_text()
    listing.write_text(text.replace("WITH_GENERIC_TESTS", "WITH_GENERIC_TESTS\n  WITH_SUBDIR"))
    folder, _ = install(source, tmp_path / "build")
    assert not list(folder.glob("*.py"))
    assert (folder / "CrossKEY/CrossKEY.py").is_file()


def copied(folder: Path) -> Path:
    """A copy of what the extension is built from."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "Testing", "docs")
    return Path(shutil.copytree(ROOT, folder / "source", ignore=ignored))


def test_a_forgotten_file_is_noticed(tmp_path):
    source = copied(tmp_path)
    listing = source / "CrossKEY/CMakeLists.txt"
    listing.write_text(listing.read_text().replace("  CrossKEYSlicer/scene/chain.py\n", ""))
    folder, _ = install(source, tmp_path / "build")
    assert expected() - files_in(folder) == {"CrossKEYSlicer/scene/chain.py"}


def test_the_installed_module_opens(app, installed):
    """From the install tree alone: panel, library and sample case are found there."""
    folder = installed[0]
    code = f"""
import sys
sys.path = [{str(folder)!r}, {str(STUB.parent)!r}] + [p for p in sys.path if p]
import host
from pathlib import Path
host.start()
module, panel, window = host.load_module(Path({str(folder / "CrossKEY.py")!r}))
from CrossKEYSlicer import samples
from CrossKEYSlicer.work import process
print(panel.ui.registerButton.text, process.library_folder(), samples.sample_file("MRI"))
panel.cleanup()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words == ["Register", str(folder), str(folder / "Resources/SampleData/MRI.nii.gz")]


def test_imports_go_from_what_is_seen_to_what_is_computed():
    """No folder of the module imports one that stands above it, also not inside a function."""
    folders = ("scene", "landmarks", "work", "", "panel")  # "": what lies beside the folders
    package = ROOT / "CrossKEY/CrossKEYSlicer"
    back = []
    for file in package.rglob("*.py"):
        folder = file.relative_to(package).parent.as_posix().removeprefix(".")
        if file.name == "selftest.py":
            continue  # a test of all of it
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            if node.level != (2 if folder else 1):
                continue  # of the same folder
            named = [node.module.split(".")[0]] if node.module else [n.name for n in node.names]
            for other in set(named).intersection(folders):
                if folders.index(other) > folders.index(folder):
                    back.append(f"{file.name}: {other}")
    assert back == []


def test_pictures_of_the_description_exist(installed):
    _, description = installed
    assert description["name"] == "CrossKEY"
    for name in ("ICONURL", "SCREENSHOTURLS"):
        for url in description[name].split():
            path = ROOT / url.split("/raw/main/")[1]
            assert path.read_bytes().startswith(b"\x89PNG"), path


def test_the_address_stands_in_one_place(installed):
    entry = json.loads((ROOT / "Resources/ExtensionIndex/CrossKEY.json").read_text())
    assert installed[1]["HOMEPAGE"] + ".git" == entry["scm_url"]
    holders = [
        path
        for pattern in ("*.md", "*.toml", "*.cff", "CMakeLists.txt", "CrossKEY/**/*.py")
        for path in ROOT.glob(pattern)
        if "example.org" in path.read_text(encoding="utf-8")
    ]
    assert holders == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.org/SlicerCrossKEY.git", "placeholder"),
        ("http://git.site.net/SlicerCrossKEY.git", "expected scm_url"),
        ("https://git.site.net/SlicerCrossKEY", "expected scm_url"),
        ("https://git.site.net/crosskey.git", "must contain 'Slicer'"),
        ("https://git.site.net/group/SlicerCrossKEY.git", ""),
    ],
)
def test_a_release_needs_a_real_address(tmp_path, address, words):
    spec = importlib.util.spec_from_file_location(
        "check_release", ROOT / "Resources/ExtensionIndex/check_release.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entry = tmp_path / "CrossKEY.json"
    entry.write_text(json.dumps({"scm_url": address}))
    said = module.problem(entry)
    assert words in said
    assert bool(said) == bool(words)


def test_index_entry():
    path = ROOT / "Resources/ExtensionIndex/CrossKEY.json"
    assert b"\r" not in path.read_bytes()
    entry = json.loads(path.read_text())
    keys = "$schema build_dependencies build_subdirectory category scm_revision scm_url tier"
    assert sorted(entry) == sorted(keys.split())
    assert entry["category"] == "Registration"
    assert entry["build_dependencies"] == ["PyTorch"]
    assert path.stem == "CrossKEY"
    assert (ROOT / "LICENSE").is_file()


def test_sample_checksums(app):
    from CrossKEYSlicer import samples

    for file, expected_sum in samples.FILES.values():
        data = (ROOT / "Resources/SampleData" / file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == expected_sum


def test_sample_data_is_registered(app, monkeypatch):
    import types

    from CrossKEYSlicer import samples

    registered = []
    module = types.ModuleType("SampleData")
    module.SampleDataLogic = types.SimpleNamespace(
        registerCustomSampleDataSource=lambda **values: registered.append(values)
    )
    monkeypatch.setitem(sys.modules, "SampleData", module)
    samples.register_samples("thumbnail.png")
    (values,) = registered
    assert values["nodeNames"] == ["MRI", "iUS"]
    for uri, checksum in zip(values["uris"], values["checksums"], strict=True):
        path = Path(uri.removeprefix("file://"))
        assert f"SHA256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == checksum


def test_the_worker_needs_no_more_than_slicer_has():
    """Slicer ships NumPy, SciPy, SimpleITK; with torch that must do for the worker."""
    code = """
import sys
for name in ("yaml", "typer", "rich", "matplotlib", "click"):
    sys.modules[name] = None
import CrossKEYLib.worker
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
