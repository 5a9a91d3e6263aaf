"""Keypoints, match lines and found landmarks go along when a tracker or a person moves an image."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..landmarks import landmark_results
from ..parameters import CrossKEYParameters
from ..scene import applied, result_nodes, views

MODIFIED = vtk.vtkCommand.ModifiedEvent
PAUSE_MS = 50  # trackers report more often than anybody can see


class ResultFollower(VTKObservationMixin):
    """Watches the volumes that the results belong to, whatever is chosen since."""

    def __init__(self) -> None:
        super().__init__()
        self._parameters: CrossKEYParameters | None = None
        self._watched: tuple[Any, ...] = ()
        self._standing: str | None = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._place)

    def follow(self, parameters: CrossKEYParameters) -> None:
        self._parameters = parameters
        volumes = (
            parameters.registeredMri,
            parameters.registeredIus,
            parameters.judgedMri,
            parameters.judgedIus,
            parameters.foundTo,
        )
        if parameters.checkerboard:
            volumes += (parameters.ius, parameters.previewVolume)
        if volumes == self._watched:
            return
        self.removeObservers()
        self._watched = volumes
        node = slicer.vtkMRMLVolumeNode
        # `arrayFromVolumeModified` tells of new voxels by the node's own event alone.
        events = (node.TransformModifiedEvent, node.ImageDataModifiedEvent, MODIFIED)
        for volume in filter(None, dict.fromkeys(volumes)):
            for event in events:
                self.addObserver(volume, event, self._changed)
        self._changed()

    def stop(self) -> None:
        self._timer.stop()
        self.removeObservers()
        self._watched, self._parameters = (), None

    def _changed(self, *_args: Any) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _place(self) -> None:
        parameters = self._parameters
        if parameters is None:
            return
        result_nodes.place_matches(parameters)
        landmark_results.place(parameters)
        views.follow(parameters)
        standing = applied.outcome(parameters).get("outdated")  # None without a verdict
        if standing != self._standing:
            self._standing = standing
            parameters.parameterNode.Modified()  # the verdict is another one now
