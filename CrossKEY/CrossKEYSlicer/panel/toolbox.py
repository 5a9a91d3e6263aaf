"""Slicer's status bar and slice views, through SlicerDevelopmentToolbox where that is installed.

The toolbox is looked for only when there is something to show; importing it is slow, and an old
version may fail in ways of its own, which must not keep the module from working.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import slicer

MESSAGE_MS = 5000


def toolbox_part(module: str, name: str) -> Any | None:
    """A class of SlicerDevelopmentToolbox, None where it is absent or broken."""
    try:
        return getattr(importlib.import_module(f"SlicerDevelopmentToolboxUtils.{module}"), name)
    except Exception as error:
        logging.debug("SlicerDevelopmentToolbox is not used: %s", error)
        return None


class StatusDisplay:
    """Progress and verdict outside the panel: richer with the toolbox, plain without."""

    def __init__(self) -> None:
        self._annotations: list[Any] = []
        self._bar_class: Any = None
        self._looked = False

    def progress(self, text: str, share: float | None) -> None:
        """Show what is being done; ``share`` is 0 to 1, or None where unknown."""
        if slicer.util.mainWindow() is None:
            return
        if not self._looked:
            self._looked = True
            self._bar_class = toolbox_part("widgets", "CustomStatusProgressbar")
        if self._bar_class is None:
            slicer.util.showStatusMessage(text, MESSAGE_MS)
            return
        bar = self._bar_class()  # the toolbox keeps one of them
        bar.text, bar.maximum = text, 100
        bar.value = 0 if share is None else round(100 * share)

    def annotate(self, text: str, accepted: bool) -> None:
        """Write the verdict into the slice views; an empty text removes it."""
        self.clear()
        layout = slicer.app.layoutManager()
        if layout is None or not text:
            return
        annotation = toolbox_part("helpers", "SliceAnnotation")
        if annotation is None:
            slicer.util.showStatusMessage(text, MESSAGE_MS)
            return
        colour = (0.2, 0.9, 0.3) if accepted else (1.0, 0.3, 0.2)
        place = {"verticalAlign": "top", "horizontalAlign": "left", "fontSize": 14}
        self._annotations = [
            annotation(layout.sliceWidget(name), text, color=colour, **place)
            for name in layout.sliceViewNames()
        ]

    def clear(self) -> None:
        for annotation in self._annotations:
            annotation.remove()
        self._annotations = []
