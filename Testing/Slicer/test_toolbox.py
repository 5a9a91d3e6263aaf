"""With SlicerDevelopmentToolbox and without it: the module works, and says the same."""

from __future__ import annotations

import sys
import types

import pytest


@pytest.fixture
def shown(app, monkeypatch):
    """Status messages that a main window would show."""
    import slicer

    messages = []
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: object())
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda text, _ms: messages.append(text))
    return messages


@pytest.fixture
def layout(app, monkeypatch):
    """A layout of two slice views."""
    manager = types.SimpleNamespace(
        sliceViewNames=lambda: ["Red", "Green"], sliceWidget=lambda name: f"widget {name}"
    )
    monkeypatch.setattr(type(app), "layoutManager", lambda self: manager)


class Bar:
    last = None

    def __init__(self):
        Bar.last = self
        self.text, self.value, self.maximum = "", 0, 0


class Annotation:
    present: list = []  # noqa: RUF012  the toolbox's class would draw; this one only counts

    def __init__(self, widget, text, **options):
        self.widget, self.text, self.options = widget, text, options
        Annotation.present.append(self)

    def remove(self):
        Annotation.present.remove(self)


@pytest.fixture
def toolbox(monkeypatch):
    package = types.ModuleType("SlicerDevelopmentToolboxUtils")
    package.__path__ = []
    parts = {
        "widgets": {"CustomStatusProgressbar": Bar},
        "helpers": {"SliceAnnotation": Annotation},
    }
    monkeypatch.setitem(sys.modules, package.__name__, package)
    for name, content in parts.items():
        module = types.ModuleType(f"{package.__name__}.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def display():
    from CrossKEYSlicer.panel.toolbox import StatusDisplay

    return StatusDisplay()


def test_with_the_toolbox(toolbox, shown, layout):
    status = display()
    status.progress("matching", 0.5)
    assert (Bar.last.text, Bar.last.value, Bar.last.maximum) == ("matching", 50, 100)
    status.annotate("Registered", True)
    assert [one.widget for one in Annotation.present] == ["widget Red", "widget Green"]
    status.annotate("Refused", False)
    assert [one.text for one in Annotation.present] == ["Refused", "Refused"]
    status.clear()
    assert Annotation.present == shown == []


def test_without_the_toolbox(shown, layout):
    status = display()
    status.progress("matching", 0.5)
    status.annotate("Registered", True)
    status.clear()
    assert shown == ["matching", "Registered"]


def test_a_broken_toolbox_does_no_harm(monkeypatch, shown, layout):
    broken = types.ModuleType("SlicerDevelopmentToolboxUtils")  # no package: its parts are missing
    monkeypatch.setitem(sys.modules, broken.__name__, broken)
    display().progress("matching", None)
    assert shown == ["matching"]


def test_without_a_main_window(app):
    status = display()
    status.progress("matching", None)
    status.annotate("Registered", True)
