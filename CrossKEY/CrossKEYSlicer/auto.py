"""Registers again by itself when the ultrasound changes or the next one arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from . import volumes
from .logic import CrossKEYLogic
from .problem import Problem

SETTLE_MS = 300  # a volume that is being received changes several times


class AutoRegister(VTKObservationMixin):
    """Watches the scene while the option is on.

    Args:
        logic: does the work.
        tell: called with the reason when a registration cannot be begun.
    """

    def __init__(self, logic: CrossKEYLogic, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._logic, self._tell = logic, tell
        self._watched: Any = None
        self._due = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_MS)
        self._timer.timeout.connect(self.registerIfDue)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._arrived)

    def follow(self) -> None:
        """Watch the ultrasound that is chosen now; another one than before is a reason to
        register."""
        parameters = self._logic.parameters
        ius = parameters.ius if parameters.autoRegister else None
        if ius is self._watched:
            return
        event = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
        if self._watched is not None:
            self.removeObserver(self._watched, event, self._changed)
        had, self._watched = self._watched, ius
        if ius is not None:
            self.addObserver(ius, event, self._changed)
            if had is not None:
                self._changed()

    def stop(self) -> None:
        self._timer.stop()
        self._due = False
        self._watched = None
        self.removeObservers()

    def registerIfDue(self) -> None:
        """Begin, unless other work is under way; then after that."""
        if not self._due or self._timer.isActive() or self._logic.busy:
            return
        self._due = False
        try:
            self._logic.startRegistration()
        except Problem as problem:
            self._tell(str(problem))

    def _changed(self, *_args: Any) -> None:
        self._due = True
        self._timer.start()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _arrived(self, caller: Any, event: str, node: Any) -> None:
        if self._watched is None or not node.IsA("vtkMRMLScalarVolumeNode"):
            return
        if volumes.is_next_of(node, self._watched):
            self._logic.parameters.ius = node
