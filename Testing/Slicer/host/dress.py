"""PySide6 that behaves like PythonQt, which Slicer's panels are written for.

PythonQt shows every Qt property as an attribute (``button.text``, not ``button.text()``), keeps the
setters beside it, and refuses attributes that do not exist. Bare PySide6 does none of this, so a
panel that is wrong for Slicer would pass.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

# C++ calls these getters itself: as attributes they would call themselves for ever.
VIRTUAL_GETTERS = {"sizeHint", "minimumSizeHint"}
# What PySide6 itself stores on instances.
OWN_VALUES = ("SignalInstance", "MetaFunction")


class QtProperty:
    """A Qt property as an attribute of its objects; the class still shows what it had."""

    def __init__(self, name: str, original: Any) -> None:
        self.name, self.original = name, original

    def __get__(self, instance: QtCore.QObject | None, owner: type) -> Any:
        if instance is not None:
            return QtCore.QObject.property(instance, self.name)
        bind = getattr(self.original, "__get__", None)
        return bind(None, owner) if bind else self.original

    def __set__(self, instance: QtCore.QObject, value: Any) -> None:
        if not QtCore.QObject.setProperty(instance, self.name, value):
            kind = type(instance).__name__
            raise AttributeError(f"{kind}.{self.name} does not take {value!r}")


def refuse_unknown(self: QtCore.QObject, name: str, value: Any) -> None:
    """``__setattr__`` of every Qt class: only what the class declares can be set.

    The stand-ins, which are Python classes, may also keep private state (a leading underscore).
    """
    for owner in type(self).__mro__:
        declared = owner.__dict__.get(name)
        if isinstance(declared, QtCore.Property):
            QtCore.QObject.setProperty(self, name, value)
            return
        if hasattr(type(declared), "__set__"):
            declared.__set__(self, value)
            return
    if isinstance(value, QtCore.QObject) and value.objectName == name:
        return  # PySide6's loader hangs children on the root of a panel; PythonQt does not
    stand_in = not type(self).__module__.startswith("PySide6")
    if type(value).__name__ in OWN_VALUES or (stand_in and name.startswith("_")):
        self.__dict__[name] = value
        return
    raise AttributeError(f"{type(self).__name__} has no attribute {name!r} that could be set")


def dress_class(cls: type) -> None:
    """Show the properties that ``cls`` adds to its base as attributes."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        present = cls.__dict__.get(name)
        if name not in VIRTUAL_GETTERS and not isinstance(present, QtProperty):
            setattr(cls, name, QtProperty(name, present))
    if "__setattr__" in cls.__dict__:
        cls.__setattr__ = refuse_unknown


def qt_module() -> types.ModuleType:
    """The module that panels import as ``qt``; installed on the first call."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    qt = types.ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name in dir(part):
            if not name.startswith("_"):
                setattr(qt, name, getattr(part, name))
    for value in list(vars(qt).values()):
        if isinstance(value, type) and issubclass(value, QtCore.QObject):
            dress_class(value)
    QtCore.QObject.name = QtCore.QObject.__dict__["objectName"]
    sys.modules["qt"] = qt
    return qt
