"""Stand-ins for the ctk and qMRML widgets of the panel, with their properties, signals and slots.

Only what the real widgets have is public here; anything else raises, as it would in Slicer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A titled section that folds."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._title = QtWidgets.QToolButton(self)
        self._title.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self._title.setCheckable(True)
        self._title.setChecked(True)
        font = self._title.font
        font.setBold(True)
        self._title.setFont(font)
        self._title.toggled.connect(lambda opened: self._fold(not opened))
        self._arrange()

    def _arrange(self) -> None:
        height = self._title.sizeHint().height()
        self._title.setGeometry(0, 0, self.width, height)
        self._title.setArrowType(Qt.RightArrow if self._collapsed else Qt.DownArrow)
        self.setContentsMargins(2, height + 2, 2, 2)
        self.setMaximumHeight(height + 4 if self._collapsed else 100000)

    def _fold(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._title.setChecked(not collapsed)
        children = self.findChildren(QtWidgets.QWidget, options=Qt.FindDirectChildrenOnly)
        for child in children:
            if child is not self._title:
                child.setVisible(not collapsed)
        self._arrange()
        self.contentsCollapsed.emit(collapsed)

    def resizeEvent(self, event: Any) -> None:
        self._arrange()

    def _set_text(self, text: str) -> None:
        self._title.setText(text)
        self._arrange()

    text = Property(str, lambda self: self._title.text, _set_text)
    collapsed = Property(bool, lambda self: self._collapsed, _fold)


class ctkPathLineEdit(QtWidgets.QWidget):
    """As CTK's: `currentPathChanged` comes for acceptable paths alone, so that emptying the field
    is told by `validInputChanged` only; folders are acceptable only with the filter `Dirs`."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files = 0x0001, 0x0002

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit()
        self._filters = self.Files
        self._valid = False
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        self._line.textChanged.connect(self._edited)

    def _edited(self, text: str) -> None:
        path = Path(text)
        valid = bool(text) and bool(
            (self._filters & self.Dirs and path.is_dir())
            or (self._filters & self.Files and path.is_file())
        )
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)
        if valid:
            self.currentPathChanged.emit(text)

    def _filter(self, filters: int) -> None:
        self._filters = filters

    currentPath = Property(
        str, lambda self: self._line.text, lambda self, path: self._line.setText(path)
    )
    filters = Property(int, lambda self: self._filters, _filter)


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)
    STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._range = [0.0, 99.0]
        self._value = 0.0
        self._slider = QtWidgets.QSlider(Qt.Horizontal)
        self._slider.setRange(0, self.STEPS)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        self._slider.valueChanged.connect(self._moved)

    def _moved(self, step: int) -> None:
        low, high = self._range
        self.setValue(low + (high - low) * step / self.STEPS)

    def setValue(self, value: float) -> None:
        low, high = self._range
        value = min(max(value, low), high)
        self._slider.blockSignals(True)
        self._slider.setValue(round((value - low) / (high - low) * self.STEPS))
        self._slider.blockSignals(False)
        if value != self._value:
            self._value = value
            self.valueChanged.emit(value)

    def _bound(self, side: int, value: float) -> None:
        self._range[side] = value
        self.setValue(self._value)

    value = Property(float, lambda self: self._value, setValue)
    minimum = Property(float, lambda self: self._range[0], lambda self, v: self._bound(0, v))
    maximum = Property(float, lambda self: self._range[1], lambda self, v: self._bound(1, v))
    singleStep = Property(float, lambda self: self._slider.singleStep, lambda self, v: None)


def option(name: str, kind: Any) -> Property:
    """A property of the node selector that changes what it offers."""

    def write(self: qMRMLNodeComboBox, value: Any) -> None:
        self._options[name] = value
        self._refill()

    return Property(kind, lambda self: self._options[name], write)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Offers the nodes of some classes and follows the scene."""

    currentNodeChanged = Signal(object)
    NEW, RENAME = "create", "rename"

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._options: dict[str, Any] = {
            "nodeTypes": [],
            "noneEnabled": False,
            "addEnabled": True,
            "removeEnabled": True,
            "renameEnabled": False,
            "showChildNodeTypes": True,
            "baseName": "",
        }
        self._scene: Any = None
        self._observers: list[int] = []
        self._current: Any = None
        self._box = QtWidgets.QComboBox()
        self._box.setObjectName("")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(self._chosen)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._scene, self._observers = scene, []
        if scene is None:
            return
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent)
        self._observers = [scene.AddObserver(event, lambda *_: self._refill()) for event in events]
        self._refill()

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        self._choose(node if node in self._offered() else None)

    def addNode(self) -> Any:
        kind = self._options["nodeTypes"][0]
        base = self._options["baseName"] or kind.removeprefix("vtkMRML").removesuffix("Node")
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(base))
        self._choose(node)
        return node

    def _offered(self) -> list[Any]:
        if self._scene is None:
            return []
        kinds = self._options["nodeTypes"]
        nodes = [n for k in kinds for n in iter_nodes(self._scene, k) if not n.GetHideFromEditors()]
        if self._options["showChildNodeTypes"]:
            return nodes
        return [node for node in nodes if node.GetClassName() in kinds]

    def _refill(self) -> None:
        offered = self._offered()
        self._box.clear()
        self._box.addItem("None" if self._options["noneEnabled"] else "Select a node", "")
        for node in offered:
            self._box.addItem(node.GetName(), node.GetID())
        if self._options["addEnabled"]:
            self._box.addItem("Create new ...", self.NEW)
        self._choose(self._current if self._current in offered else None)

    def _choose(self, node: Any) -> None:
        changed = node is not self._current
        self._current = node
        self._box.setCurrentIndex(max(0, self._box.findData(node.GetID() if node else "")))
        if changed:
            self.currentNodeChanged.emit(node)

    def _chosen(self, index: int) -> None:
        data = self._box.itemData(index)
        if data == self.NEW:
            self.addNode()
        else:
            self._choose(self._scene.GetNodeByID(data) if data else None)

    nodeTypes = option("nodeTypes", "QStringList")
    noneEnabled = option("noneEnabled", bool)
    addEnabled = option("addEnabled", bool)
    removeEnabled = option("removeEnabled", bool)
    renameEnabled = option("renameEnabled", bool)
    showChildNodeTypes = option("showChildNodeTypes", bool)
    baseName = option("baseName", str)


def iter_nodes(scene: Any, kind: str) -> list[Any]:
    return [scene.GetNthNodeByClass(i, kind) for i in range(scene.GetNumberOfNodesByClass(kind))]


STAND_INS = {
    cls.__name__: cls
    for cls in (
        qMRMLWidget,
        qMRMLNodeComboBox,
        ctkCollapsibleButton,
        ctkPathLineEdit,
        ctkSliderWidget,
    )
}
