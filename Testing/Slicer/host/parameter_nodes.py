"""Stands in for `slicer.parameterNodeWrapper`: typed values kept in a scripted module node.

Covers numbers, text, truth values and nodes, with `Choice` and `WithinRange`, and the widgets that
the panel ties to them. As Slicer's own it refuses values of the wrong type, and pairs of a type and
a widget that it does not know; it writes defaults at once; it keeps what it has read until the node
is modified; and its ``connectGui`` returns no tag to disconnect by.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import qt
import slicer
import vtk

from . import widgets

__all__ = ["Choice", "WithinRange", "parameterNodeWrapper"]

MODIFIED = vtk.vtkCommand.ModifiedEvent


@dataclass(frozen=True)
class Choice:
    choices: list[str]

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} lies outside {self.minimum} to {self.maximum}")


@dataclass(frozen=True)
class Parameter:
    """One value: how it is kept in the node."""

    name: str
    kinds: tuple[type, ...]
    limits: tuple[Choice | WithinRange, ...]
    default: Any

    @property
    def kind(self) -> type:
        return self.kinds[0]

    @property
    def is_node(self) -> bool:
        return issubclass(self.kind, slicer.vtkMRMLNode)

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        allowed = (int, float) if self.kind is float else self.kinds
        if not (isinstance(value, allowed) or (value is None and self.is_node)):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, got {value!r}")
        for limit in self.limits:
            limit.check(value)
        node.SetParameter(self.name, "" if self.is_node else str(value))
        if self.is_node:
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)


def tie(parameter: Parameter, widget: Any) -> tuple[Any, typing.Callable, typing.Callable]:
    """The widget's signal of change, how to read it, and how to write it."""
    pair = (parameter.kind, type(widget))
    if pair == (bool, qt.QCheckBox):
        return widget.stateChanged, lambda: widget.checked, widget.setChecked
    numbers = ((int, qt.QSpinBox), (float, qt.QDoubleSpinBox), (float, widgets.ctkSliderWidget))
    if pair in numbers:
        limit = next(limit for limit in parameter.limits if isinstance(limit, WithinRange))
        widget.minimum, widget.maximum = limit.minimum, limit.maximum
        return widget.valueChanged, lambda: widget.value, widget.setValue
    if pair == (str, qt.QComboBox):
        (choice,) = parameter.limits
        widget.clear()
        widget.addItems(choice.choices)
        return widget.currentIndexChanged, lambda: widget.currentText, widget.setCurrentText
    if parameter.is_node and type(widget) is widgets.qMRMLNodeComboBox:
        widget.nodeTypes = [kind.__name__ for kind in parameter.kinds]
        return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    raise RuntimeError(f"no way to tie {parameter.name} to a {type(widget).__name__}")


def parameterNodeWrapper(cls: type) -> type:
    """Turn a class of annotated names into a view of a scripted module node."""
    parameters = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, *limits = typing.get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        kinds = (kind,)
        if typing.get_origin(kind) is typing.Union:  # of classes of nodes, and None
            kinds = tuple(one for one in typing.get_args(kind) if one is not type(None))
        default = getattr(cls, name, None if issubclass(kinds[0], slicer.vtkMRMLNode) else kind())
        parameters[name] = parameter = Parameter(name, kinds, tuple(limits), default)
        setattr(cls, name, as_property(parameter))
    return type(cls.__name__, (cls, Wrapper), {"parameters": parameters})


def as_property(parameter: Parameter) -> property:
    return property(
        lambda self: self._kept[parameter.name],
        lambda self, value: self._write(parameter, value),
    )


class Wrapper:
    """What every wrapped class can do."""

    parameters: typing.ClassVar[dict[str, Parameter]]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._ties: dict[int, list[tuple]] = {}
        self._tags = 0
        self._updating = False
        self._read()
        parameterNode.AddObserver(MODIFIED, lambda *_: self._read())

    def connectGui(self, ui: Any) -> None:
        """Tie every widget that names a parameter in its property SlicerParameterName."""
        named = [(w.property("SlicerParameterName"), w) for w in vars(ui).values()]
        self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        tied = []
        for name, widget in mapping.items():
            signal, read, write = tie(self.parameters[name], widget)
            write(getattr(self, name))
            tied.append((name, signal, self._follow(name, read), write))
            signal.connect(tied[-1][2])
        tag, self._tags = self._tags, self._tags + 1
        self._ties[tag] = tied
        self.parameterNode.AddObserver(MODIFIED, lambda *_: self._show())
        return tag

    def disconnectGui(self, tag: Any) -> None:
        for _, signal, follow, _ in self._ties.pop(tag, []):
            signal.disconnect(follow)

    def _read(self) -> None:
        self._kept = {p.name: p.read(self.parameterNode) for p in self.parameters.values()}

    def _write(self, parameter: Parameter, value: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            parameter.write(self.parameterNode, value)
            self._kept[parameter.name] = parameter.read(self.parameterNode)

    def _follow(self, name: str, read: typing.Callable) -> typing.Callable:
        def follow(*_: Any) -> None:
            if not self._updating:
                setattr(self, name, read())

        return follow

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for tied in self._ties.values():
                for name, _, _, write in tied:
                    write(getattr(self, name))
        finally:
            self._updating = False
