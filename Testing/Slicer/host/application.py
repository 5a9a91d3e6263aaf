"""The application around a panel: scene, logics, module manager, and what loads a module."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtUiTools, QtWidgets

from . import dress

qt = dress.qt_module()

from . import widgets  # noqa: E402  the stand-ins need dressed classes to derive from

OWN_FILES = "CROSSKEY_SLICER_PYTHON"
LOGICS = {
    "Markups": "vtkSlicerMarkupsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


class ModuleManager:
    """Tells the panels when their module goes."""

    def __init__(self) -> None:
        self._unloading: list[Callable[[str], None]] = []

    def connect(self, signal: str, receiver: Callable[[str], None]) -> None:
        assert signal == "moduleAboutToBeUnloaded(QString)"
        self._unloading.append(receiver)

    def disconnect(self, signal: str, receiver: Callable[[str], None]) -> None:
        self._unloading.remove(receiver)

    def unload(self, name: str) -> None:
        for receiver in list(self._unloading):
            receiver(name)


class Application(QtWidgets.QApplication):
    """What panels know as ``slicer.app``."""

    startupCompleted = QtCore.Signal()

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self._scene, self._logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
        self._modules = ModuleManager()
        self._temporary = tempfile.TemporaryDirectory(prefix="slicer-host-")
        file = str(Path(self._temporary.name) / "Slicer.ini")
        self._settings = QtCore.QSettings(file, QtCore.QSettings.IniFormat)
        self._fill()

    def _fill(self) -> None:
        """Colours, orientations and node classes, as Slicer's modules register them."""
        self._scene.AddNode(slicer.vtkMRMLSelectionNode())
        self._scene.AddNode(slicer.vtkMRMLInteractionNode())
        self._logic.SetMRMLScene(self._scene)
        colours = self._logic.GetColorLogic()
        colours.SetMRMLScene(self._scene)
        colours.AddDefaultColorNodes()
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self._scene, True)
        self._logics = {name: getattr(slicer, kind)() for name, kind in LOGICS.items()}
        for name, logic in self._logics.items():
            logic.SetMRMLScene(self._scene)
            logic.SetMRMLApplicationLogic(self._logic)
            self._logic.SetModuleLogic(name, logic)
        surfaces = slicer.vtkClosedSurfaceToBinaryLabelmapConversionRule()
        slicer.vtkSegmentationConverterFactory.GetInstance().RegisterConverterRule(surfaces)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def closeViews(self) -> None:
        """Let the logics of slice and 3D views go, with the hidden nodes that each has made: those
        are singletons, which outlive a scene's closing."""
        for logics in (self._logic.GetSliceLogics(), self._logic.GetViewLogics()):
            for logic in [logics.GetItemAsObject(i) for i in range(logics.GetNumberOfItems())]:
                logic.SetMRMLScene(None)
            logics.RemoveAllItems()

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def layoutManager(self) -> None:
        """There is no main window."""

    def testingEnabled(self) -> bool:
        return True

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    @property
    def temporaryPath(self) -> str:
        return self._temporary.name


class UiLoader(QtUiTools.QUiLoader):
    """Loads panels with stand-ins in place of Slicer's widgets."""

    def createWidget(self, kind: str, parent: Any = None, name: str = "") -> Any:
        if kind.startswith(("ctk", "qMRML", "qSlicer")):
            widget = widgets.STAND_INS[kind](parent)
            widget.setObjectName(name)
            return widget
        return super().createWidget(kind, parent, name)

    def load(self, file: QtCore.QFile, parent: Any = None) -> Any:
        root = super().load(file, parent)
        # Signals with VTK types mean nothing to Qt's own loader.
        for connection in ET.parse(file.fileName()).getroot().iter("connection"):
            receiver = root.findChild(QtCore.QObject, connection.findtext("receiver"))
            assert receiver is not None, connection.findtext("receiver")
            root.mrmlSceneChanged.connect(receiver.setMRMLScene)
        return root


def start() -> Application:
    """The one application of this process, its names put where panels look for them."""
    running = QtWidgets.QApplication.instance()
    if running is not None:
        return running
    QtCore.qInstallMessageHandler(quiet)
    qt.QUiLoader = UiLoader
    ctk = types.ModuleType("ctk")
    for name, cls in widgets.STAND_INS.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, cls)
    sys.modules["ctk"] = ctk
    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
    app = Application()
    slicer.app, slicer.mrmlScene = app, app.mrmlScene()
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    sequences = app.applicationLogic().GetModuleLogic("Sequences")
    slicer.modules.sequences = types.SimpleNamespace(logic=lambda: sequences)
    slicer.selfTests = {}
    own = os.environ.get(OWN_FILES)
    if own:
        use_own_files(Path(own) / "slicer")
    else:
        stand_in_files()
    return app


def stand_in_files() -> None:
    from . import parameter_nodes, scripted

    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    sys.modules["slicer.i18n"] = i18n
    sys.modules["slicer.ScriptedLoadableModule"] = scripted
    sys.modules["slicer.parameterNodeWrapper"] = parameter_nodes


def use_own_files(folder: Path) -> None:
    """Slicer's own files; `slicer.util` stays that of slicer-core, which is Slicer's own too."""
    assert (folder / "ScriptedLoadableModule.py").is_file(), f"{OWN_FILES}: nothing in {folder}"
    slicer.__path__.append(str(folder))
    text = "".join(file.read_text("utf-8") for file in folder.glob("parameterNodeWrapper/*.py"))
    for package, name in re.findall(r"\b(ctk|slicer)\.(ctk\w+|qMRML\w+|qSlicer\w+)", text):
        if not hasattr(sys.modules[package], name):
            setattr(sys.modules[package], name, unavailable(name))
    for package, name in re.findall(r"^from (\w+PythonQt) import (\w+)", text, re.MULTILINE):
        module = sys.modules.setdefault(package, types.ModuleType(package))
        setattr(module, name, unavailable(name))


def unavailable(name: str) -> type:
    """A widget that Slicer's own files name and this host does not have: no panel gets one."""

    def refuse(self: object, *_: Any) -> None:
        raise NotImplementedError(f"the host has no stand-in for {name}")

    return type(name, (), {"__init__": refuse})


def quiet(kind: Any, context: Any, message: str) -> None:
    """Not what is known: signals with VTK types, which `UiLoader` connects; no real screen."""
    expected = ("No such s", "QObject::connect", "propagateSizeHints")
    if not any(words in message for words in expected):
        print(f"Qt: {message}", file=sys.stderr)


class qSlicerScriptedLoadableModuleWidget(widgets.qMRMLWidget):
    """A panel's place in the application: makes the panel, and makes it anew on "Reload"."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.setLayout(QtWidgets.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)
        self.reload()

    def self(self) -> Any:
        return self._panel

    def reload(self) -> None:
        self._panel = getattr(sys.modules[self._name], self._name + "Widget")(self)
        setattr(slicer.modules, self._name + "Widget", self._panel)
        self._panel.setup()


def load_module(path: Path) -> tuple[types.ModuleType, Any, QtWidgets.QWidget]:
    """Do what Slicer does with a scripted module: import it, declare it, build its panel.

    Returns:
        The Python module, its widget object, and the window.
    """
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(name)
    declared = types.SimpleNamespace(path=str(path), title="", categories=[], icon=None)
    setattr(slicer.modules, name.lower(), declared)
    getattr(module, name)(declared)
    window = qSlicerScriptedLoadableModuleWidget(name)
    declared.widgetRepresentation = lambda: window
    return module, window.self(), window
