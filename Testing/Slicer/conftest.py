"""The host, an empty scene, and a panel for each test of the module."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cases import FAKE, MODULE, make_volume

PATIENCE_S = 30.0
VIEW_NODES = ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode", "vtkMRMLViewNode")


@pytest.fixture(scope="session")
def app() -> Any:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    pytest.importorskip(
        "PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError
    )
    from host import start

    application = start()
    if str(MODULE.parent) not in sys.path:
        sys.path.insert(0, str(MODULE.parent))
    importlib.import_module("CrossKEY")
    return application


@pytest.fixture(autouse=True)
def no_hidden_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What goes wrong in an observer or a slot is only printed, by VTK and by Qt alike; here it
    fails the test."""
    errors: list[str] = []

    def hook(kind: Any, error: Any, trace: Any) -> None:
        errors.append("".join(traceback.format_exception(kind, error, trace)))

    monkeypatch.setattr(sys, "excepthook", hook)
    yield
    assert not errors, "\n".join(errors)


@pytest.fixture
def scene(app: Any) -> Any:
    from host.widgets import iter_nodes

    scene = app.mrmlScene()
    app.closeViews()
    scene.RemoveNode(scene.GetSingletonNode("CrossKEY", "vtkMRMLScriptedModuleNode"))
    scene.Clear(0)
    for kind in VIEW_NODES:  # these outlive a scene's closing
        for node in list(iter_nodes(scene, kind)):
            scene.RemoveNode(node)
    scene.SetURL("")
    return scene


@pytest.fixture
def wait(app: Any) -> Callable:
    """Let the application go on until something is true."""

    def wait(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "this never happened"
            app.processEvents()
            time.sleep(0.002)

    return wait


@pytest.fixture
def worker(scene: Any) -> Iterator[Callable]:
    """Makes fake workers and ends their processes."""
    from CrossKEYSlicer.work.process import WorkerProcess

    made = []

    def make(mode: str = "accept", seconds: float = 0.0) -> WorkerProcess:
        made.append(WorkerProcess([sys.executable, str(FAKE), mode, str(seconds)]))
        return made[-1]

    yield make
    for process in made:
        process.stop()


@pytest.fixture
def logic(worker: Callable) -> Iterator[Callable]:
    """Makes logics with fake workers."""
    from CrossKEYSlicer.logic import CrossKEYLogic

    made = []

    def make(mode: str = "accept", seconds: float = 0.0) -> CrossKEYLogic:
        made.append(CrossKEYLogic(worker(mode, seconds)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def panel(scene: Any, worker: Callable, app: Any) -> Iterator[Any]:
    """The panel in a window, its logic with a fake worker that accepts everything."""
    from host import load_module

    _, panel, window = load_module(MODULE)
    panel.logic.worker = worker()
    panel.window = window
    window.resize(430, 980)
    window.show()
    app.processEvents()
    yield panel
    panel.cleanup()
    for widget in vars(panel.ui).values():  # Slicer's selectors leave the scene when they go
        if hasattr(widget, "setMRMLScene"):
            widget.setMRMLScene(None)
    window.close()
    window.deleteLater()
    app.processEvents()


@pytest.fixture
def volumes(scene: Any) -> tuple[Any, Any]:
    """An MRI and an ultrasound: a bright ball each, on oblique grids."""
    return make_volume("MRI", 0), make_volume("iUS", 1)
