"""A stand-in for the Slicer application, so that the panel can be clicked in plain Python.

The scene, its nodes and its logics are Slicer's own (slicer-core); the widgets are PySide6, dressed
to look and refuse like PythonQt (`dress.py`), with stand-ins for the ctk and qMRML widgets that the
panel uses (`widgets.py`). `scripted.py` and `parameter_nodes.py` stand in for those files of Slicer
that slicer-core lacks. To run with Slicer's own files instead, set CROSSKEY_SLICER_PYTHON to the
folder `bin/Python` of a Slicer installation, which holds `slicer/ScriptedLoadableModule.py`.

What this host shows is not a picture of the Slicer application.
"""

from __future__ import annotations

from .application import Application, load_module, start

__all__ = ["Application", "load_module", "start"]
