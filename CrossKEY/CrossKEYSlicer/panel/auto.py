"""Registers or finds landmarks again by itself when what it was done for has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..logic import CrossKEYLogic
from ..problem import Problem
from ..scene import volumes

SETTLE_MS = 300  # a volume that is being received changes several times, as do points
LONGEST_S = 1.5  # a stream never settles: then it is the newest image that is taken


class Repeater(VTKObservationMixin):
    """Watches a node of the scene and begins work again a little after it has changed.

    Args:
        logic: does the work.
        begin: begins it.
        tell: called with the reason when it cannot be begun.
        events: of the node, which tell that it has changed.
    """

    def __init__(
        self,
        logic: CrossKEYLogic,
        begin: Callable[[], None],
        tell: Callable[[str], None],
        events: Sequence[int],
    ) -> None:
        super().__init__()
        self._logic, self._begin, self._tell, self._events = logic, begin, tell, events
        self._watched: Any = None
        self._due = False
        self._since = 0.0  # when the first change came that is still due
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_MS)
        self._timer.timeout.connect(self.beginIfDue)

    def follow(self, node: Any) -> None:
        """Watch this node, or none; another one than before counts as a change."""
        if node is self._watched:
            return
        had, self._watched = self._watched, node
        for event in self._events:
            if had is not None:
                self.removeObserver(had, event, self._changed)
            if node is not None:
                self.addObserver(node, event, self._changed)
        if node is None:
            self.forget()
        elif had is not None:
            self._changed()

    def forget(self) -> None:
        """What has changed so far is no reason any more."""
        self._timer.stop()
        self._due = False

    def stop(self) -> None:
        self.forget()
        self._watched = None
        self.removeObservers()

    def beginIfDue(self) -> None:
        """Begin, unless other work is under way; then after that."""
        if not self._due or self._timer.isActive() or self._logic.busy:
            return
        self._due = False
        try:
            self._begin()
        except Problem as problem:
            self._tell(str(problem))

    def _changed(self, *_args: Any) -> None:
        now = monotonic()
        if not self._due:
            self._since = now
        self._due = True
        if not self._timer.isActive() or now - self._since < LONGEST_S:
            self._timer.start()  # anew: the image is still changing


class AutoRegister(Repeater):
    """Also when the next ultrasound arrives, which then takes the place of the present one."""

    def __init__(self, logic: CrossKEYLogic, tell: Callable[[str], None]) -> None:
        events = (slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,)
        super().__init__(logic, logic.startRegistration, tell, events)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._arrived)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _arrived(self, caller: Any, event: str, node: Any) -> None:
        if self._watched is None or not node.IsA("vtkMRMLScalarVolumeNode"):
            return
        if volumes.is_next_of(node, self._watched):
            self._logic.parameters.ius = node


class AutoFind(Repeater):
    """When a point was placed, removed, or let go after it was dragged."""

    def __init__(self, logic: CrossKEYLogic, tell: Callable[[str], None]) -> None:
        markups = slicer.vtkMRMLMarkupsNode
        events = (
            markups.PointPositionDefinedEvent,
            markups.PointRemovedEvent,
            markups.PointEndInteractionEvent,
        )
        super().__init__(logic, logic.startLandmarks, tell, events)
