"""PyTorch installed by its extension, of which there is only a fake one here."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
from cases import ROOT, choose

LINES = ("Collecting torch>=2.6", "Downloading torch-2.13.0.whl (900.1 MB)", "x" * 300)


class Extension:
    """What `PyTorchUtils.PyTorchUtilsLogic` does: prints what pip says, lets Slicer deal with
    events after each line, and returns torch."""

    def __init__(self, app, installed):
        self.app, self.installed = app, installed
        self.calls, self.seen = [], []
        self.meanwhile = lambda: None
        self.failure = None

    def __call__(self):
        return self

    def installTorch(self, **options):
        self.calls.append(options)
        for line in LINES:
            print(line)
            self.app.processEvents()
            self.meanwhile()
        if self.failure is not None:
            print("ERROR: No matching distribution found for torch>=2.6")
            return self.failure()
        self.installed()
        return types


@pytest.fixture
def extension(app, monkeypatch):
    from CrossKEYSlicer.panel import install

    def installed():
        monkeypatch.setattr(install, "installed_torch", lambda: "2.13.0")

    fake = Extension(app, installed)
    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = fake
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    monkeypatch.setattr(install, "installed_torch", lambda: "")
    return fake


@pytest.fixture
def asked(panel):
    """The questions; the answer is always yes."""
    questions = []
    panel.ask = lambda question: questions.append(question) or True
    return questions


def test_after_one_question(panel, volumes, wait, extension, asked):
    choose(panel, *volumes)
    assert asked == []
    panel.ui.registerButton.click()
    wait(lambda: not panel.logic.busy)
    assert len(asked) == 1
    assert "PyTorch" in asked[0]
    assert extension.calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.6"}]
    assert panel.logic.job.state == "done"
    assert "Registered in" in panel.ui.statusLabel.text


def test_not_against_a_persons_will(panel, volumes, extension):
    panel.ask = lambda question: False
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert extension.calls == []
    assert panel.logic.job is None
    assert "Nothing was installed" in panel.ui.statusLabel.text


def test_not_without_the_extension(panel, volumes, extension, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    panel.ask = lambda question: pytest.fail("there is nothing to ask")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert "Extensions Manager" in panel.ui.statusLabel.text
    assert panel.logic.job is None


def test_something_is_seen_meanwhile(panel, volumes, wait, extension, asked, capsys):
    ui, seen = panel.ui, []
    choose(panel, *volumes)

    def look():
        bar = (ui.progressBar.visible, ui.progressBar.minimum, ui.progressBar.maximum)
        seen.append((ui.statusLabel.text, bar))
        assert not ui.registerButton.enabled
        assert not ui.prepareButton.enabled
        assert not ui.cancelButton.visible
        ui.fadeSlider.value = 0.3 + 0.1 * len(seen)  # a change makes the panel look again
        assert not ui.registerButton.enabled

    extension.meanwhile = look
    ui.registerButton.click()
    assert [bar for _, bar in seen] == [(True, 0, 0)] * 3
    for (text, _), line in zip(seen, LINES, strict=True):
        assert text.startswith("Installing PyTorch")
        assert text.endswith(line[:100])
    assert capsys.readouterr().out.splitlines() == list(LINES)
    wait(lambda: not panel.logic.busy)
    assert not ui.progressBar.visible


def test_it_is_seen_before_the_first_line(panel, volumes, extension, asked, app, monkeypatch):
    """The first thing that the extension does may take minutes."""
    painted = []
    monkeypatch.setattr(
        extension, "installTorch", lambda **_: painted.append(panel.ui.progressBar.visible)
    )
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert painted == [True]


def test_nothing_else_can_be_begun(panel, scene, volumes, extension, asked):
    from CrossKEYSlicer.problem import Problem

    choose(panel, *volumes)

    def try_it():
        panel.ui.registerButton.click()
        panel.onCancel()
        with pytest.raises(Problem, match="already at work"):
            panel.logic.register(*volumes)

    extension.meanwhile = try_it
    panel.ui.prepareButton.click()
    assert len(extension.calls) == len(asked) == 1
    assert panel.logic.job.kind == "prepare"


def test_the_scene_is_closed_meanwhile(panel, scene, volumes, extension, asked):
    choose(panel, *volumes)
    extension.meanwhile = lambda: scene.Clear(0)
    panel.ui.registerButton.click()
    assert len(extension.calls) == 1
    assert "Select the MRI first" in panel.ui.statusLabel.text
    assert not panel.logic.busy


def test_the_panel_goes_meanwhile(panel, scene, volumes, extension, asked, app):
    choose(panel, *volumes)
    extension.meanwhile = lambda: app.moduleManager().unload("CrossKEY")
    panel.ui.registerButton.click()
    assert panel.logic.worker.pid == 0
    assert panel.logic.job.kind == "install", "a registration was begun by a panel that is gone"


def raise_error():
    raise subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "light_the_torch"])


@pytest.mark.parametrize("failure", [raise_error, lambda: None])
def test_a_failure_is_told(panel, volumes, extension, asked, failure):
    extension.failure = failure
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert "could not be installed" in panel.ui.statusLabel.text
    assert "#b3261e" in panel.ui.statusLabel.styleSheet
    if failure is raise_error:
        assert "No matching distribution" in panel.ui.statusLabel.text
    assert panel.ui.registerButton.enabled
    assert not panel.ui.progressBar.visible
    panel.ui.registerButton.click()
    assert len(extension.calls) == 2


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("", "not installed"),
        ("2.2.2", "2.6 or newer; this Slicer has 2.2.2"),
        ("2.5.1+cu124", "has 2.5.1+cu124"),
        ("2.6.0+cu124", ""),
        ("2.10.0", ""),
        ("2.13.0+cpu", ""),
        ("2.14.0a0+git1", ""),
        ("3.0", ""),
    ],
)
def test_versions(app, monkeypatch, version, words):
    from CrossKEYSlicer.panel import install

    monkeypatch.setattr(install, "installed_torch", lambda: version)
    said = install.torch_lacking()
    assert words in said
    assert bool(said) == bool(words)


def test_the_panel_asks_for_what_the_library_needs(app):
    from CrossKEYSlicer.panel import install

    project = (ROOT / "pyproject.toml").read_text()
    for needed in ("torch" + install.TORCH, install.NIBABEL):
        assert f'"{needed}"' in project


def test_the_version_comes_from_the_metadata(app):
    import importlib.metadata

    from CrossKEYSlicer.panel import install

    assert install.installed_torch() == importlib.metadata.version("torch")


def test_an_empty_folder_is_no_torch(app, monkeypatch, tmp_path):
    """As an uninstallation leaves it behind: found as a package, but without metadata."""
    import importlib.metadata
    import importlib.util

    from CrossKEYSlicer.panel import install

    (tmp_path / "torch").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert importlib.util.find_spec("torch") is not None
    assert install.installed_torch() == ""


def test_too_old_is_told_in_the_question(panel, volumes, extension, asked, monkeypatch):
    from CrossKEYSlicer.panel import install

    monkeypatch.setattr(install, "installed_torch", lambda: "2.2.2")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert "this Slicer has 2.2.2" in asked[0]


def test_no_question_where_there_is_no_build(panel, volumes, extension, asked, monkeypatch):
    import platform

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    assert asked == extension.calls == []
    assert "macOS" in panel.ui.statusLabel.text


def test_the_self_test_is_skipped_without_torch(extension, scene):
    from CrossKEY import CrossKEYTest

    said = []
    test = CrossKEYTest()
    test.delayDisplay = lambda text, *_: said.append(text)
    test.runTest()
    assert len(said) == 1
    assert said[0].startswith("Skipped: CrossKEY needs PyTorch")


@pytest.mark.parametrize("agreed", [True, False])
def test_nibabel_is_installed_after_a_question(app, monkeypatch, agreed):
    import importlib.util

    import slicer
    from CrossKEYSlicer import problem
    from CrossKEYSlicer.panel import install

    installed, questions = [], []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(slicer.util, "pip_install", installed.append, raising=False)
    monkeypatch.setattr(install, "installed_torch", lambda: "2.13.0")

    def ask(question):
        questions.append(question)
        return agreed

    if agreed:
        install.ensure_torch(None, ask)
    else:
        with pytest.raises(problem.Cancelled, match="Nothing was installed"):
            install.ensure_torch(None, ask)
    assert installed == (["nibabel>=5.3"] if agreed else [])
    assert len(questions) == 1
    assert "nibabel" in questions[0]
