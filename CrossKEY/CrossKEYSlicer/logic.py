"""What the module does, without any widget: also for the Python console and other modules.

logic = CrossKEYLogic()
result = logic.register(mriNode, iusNode)
print(result["accepted"], result["reasons"])
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer import (
    vtkMRMLLinearTransformNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
)
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from .landmarks import landmark_results, target_error
from .parameters import CrossKEYParameters
from .problem import Cancelled, Problem
from .scene import applied, preview, report, views, volumes
from .work import sequence
from .work.follow import ResultFollower
from .work.jobs import Jobs
from .work.process import WorkerProcess
from .work.sequence import SequenceResults

OVERLAP = 0.5  # share of the ultrasound's box in the MRI's, from which navigation is believed
# Ends of many changes at once: closing, loading and restoring are batches, undoing is none.
SCENE_CHANGED = ("EndBatchProcessEvent", "EndUndoEvent", "EndRedoEvent")


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A bound method that does not keep its object alive, for observers that outlive it."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = reference()
        if alive is not None:
            alive(*args)

    return call


class CrossKEYLogic(ScriptedLoadableModuleLogic, VTKObservationMixin, Jobs):
    """Registration, preparation, landmarks and what goes with them.

    Choices and results live in the scene's parameter node, so two logics of one scene share them.

    Args:
        worker: the process that computes; the application's one when missing.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        VTKObservationMixin.__init__(self)
        Jobs.__init__(self, worker)
        self._parameters: CrossKEYParameters | None = None
        self._follower = ResultFollower()
        scene = slicer.mrmlScene
        # The scene and the application outlive a logic that was made in the console and let go.
        self.addObserver(scene, scene.StartCloseEvent, weakly(self._sceneCloses))
        for event in SCENE_CHANGED:
            self.addObserver(scene, getattr(scene, event), weakly(self._sceneChanged))
        self._onParameters = weakly(self._parametersChanged)
        slicer.app.aboutToQuit.connect(weakly(self.close))

    def __del__(self) -> None:
        self.removeObservers()

    @property
    def parameters(self) -> CrossKEYParameters:
        node = self.getParameterNode()
        if self._parameters is None or self._parameters.parameterNode is not node:
            # Of equal priority, VTK calls the first observer last. That must not be the one by
            # which a parameter is kept up to date, so one of lower priority comes first.
            modified = vtk.vtkCommand.ModifiedEvent
            if not self.hasObserver(node, modified, self._onParameters):
                self.addObserver(node, modified, self._onParameters, priority=-1.0)
            self._parameters = CrossKEYParameters(node)
            self._follower.follow(self._parameters)
        return self._parameters

    # For the console: these return when the work is done, and Slicer goes on answering meanwhile

    def register(
        self,
        mri: vtkMRMLScalarVolumeNode,
        ius: vtkMRMLScalarVolumeNode,
        transform: vtkMRMLLinearTransformNode | None = None,
        fromPresent: bool = False,
        mriMask: Any = None,
        iusMask: Any = None,
    ) -> dict[str, Any]:
        """Register an ultrasound to an MRI and move it there, unless that is refused.

        Args:
            transform: takes the result; the one in use, or a new one, when missing.
            fromPresent: search around the alignment that the scene has.
            mriMask: label map or segmentation node of the brain; found when missing.
            iusMask: the same of what the ultrasound shows.

        Returns:
            The report (``accepted``, ``reasons``, ``confidence``, ``predicted_tre_mm`` ...).

        Raises:
            Problem: it cannot be done; the text says why.
        """
        self._checkIdle()
        chosen = {"mri": mri, "ius": ius, "fromPresent": fromPresent}
        chosen |= {"mriMask": mriMask, "iusMask": iusMask}
        self._choose(**chosen, **({} if transform is None else {"transform": transform}))
        self.startRegistration()
        return self._wait()

    def registerSequence(
        self, mri: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode
    ) -> SequenceResults:
        """Register every item of the sequence that an ultrasound belongs to, one after another.

        A cancelled run keeps what it has. The last item stays selected.

        Args:
            ius: the volume that shows the selected item in a sequence browser.

        Returns:
            ``table`` with a row for each item, and ``transforms``, a sequence of those accepted.

        Raises:
            Problem: the volume belongs to no sequence, or an item cannot be registered.
        """
        self._checkIdle()
        p = self.parameters
        kept = {name: getattr(p, name) for name in ("fromPresent", "mriMask", "iusMask")}
        found = SequenceResults(sequence.browser_of(ius), ius)
        for item in range(found.count):
            found.select(item)
            try:
                found.add(item, self.register(mri, ius, **kept))
            except Cancelled:
                break
        return found

    def prepare(
        self,
        mri: vtkMRMLScalarVolumeNode,
        others: Sequence[vtkMRMLScalarVolumeNode] = (),
        minutes: float = 10.0,
        syntheticFolder: str = "",
    ) -> dict[str, Any]:
        """Train a model for this patient; the scene remembers it.

        Args:
            others: up to two more contrasts in the same world.

        Raises:
            Problem: it cannot be done; the text says why.
        """
        self._checkIdle()
        if len(others) > 2:
            raise Problem(_("At most two more contrasts can be used."))
        second, third = [*others, None, None][:2]
        self._choose(mri=mri, secondContrast=second, thirdContrast=third)
        self._choose(minutes=minutes, syntheticFolder=str(syntheticFolder))
        self.startPreparation()
        return self._wait()

    def propagateLandmarks(
        self,
        fromNode: vtkMRMLScalarVolumeNode,
        toNode: vtkMRMLScalarVolumeNode,
        markupsNode: vtkMRMLMarkupsFiducialNode,
    ) -> dict[str, Any]:
        """Find points of one image in another: of another contrast, time or patient.

        Args:
            fromNode: the image that the points were placed in.
            toNode: the image to find them in.
            markupsNode: the points; lesions are followed by their centres.

        Returns:
            For each point its entry in ``labels``, ``points`` (world, RAS mm), ``scores`` (cosine),
            ``spreads`` (mm) and ``trust`` ("good", "check" or "absent"). The node with the points
            is ``parameters.foundLandmarks``.

        Raises:
            Problem: it cannot be done; the text says why.
        """
        self._checkIdle()
        self._choose(landmarksFrom=fromNode, landmarksTo=toNode, landmarkPoints=markupsNode)
        self.startLandmarks()
        return self._wait()

    def similarityMap(self, row: int = 0) -> vtkMRMLScalarVolumeNode:
        """How similar every place is to the point in this row of the last finding, -1 to 1.

        Raises:
            Problem: it cannot be done; the text says why.
        """
        found = landmark_results.rows(self.parameters)
        if not 0 <= row < len(found):
            raise Problem(_("There is no such point; find landmarks first."))
        self.startSimilarity(found[row])
        self._wait()
        return self.parameters.similarityMap

    def _choose(self, **choices: Any) -> None:
        """Set parameters.

        Raises:
            Problem: a value that one cannot take.
        """
        for name, value in choices.items():
            try:
                setattr(self.parameters, name, value)
            except (TypeError, ValueError) as error:
                text = _("{name} cannot be {value}: {error}")
                raise Problem(text.format(name=name, value=value, error=error)) from error

    def evaluate(self, mriLandmarks: Any = None, iusLandmarks: Any = None) -> dict[str, float]:
        """Mean landmark distance in mm: ``before`` and ``after``, and the ``count`` of pairs.

        Raises:
            Problem: landmarks are missing or no pairs, or nothing was registered.
        """
        parameters = self.parameters
        pair = (mriLandmarks or parameters.mriLandmarks, iusLandmarks or parameters.iusLandmarks)
        correction = applied.in_place(parameters)
        return target_error.errors(*pair, parameters.registeredTransform, correction)

    # For the panel

    def showAfter(self, after: bool) -> None:
        """Show the scene after registration, or as it was before."""
        applied.show(self.parameters, after)

    def applyPreview(self) -> None:
        """Move the ultrasound as the preview of a doubtful result shows it.

        Raises:
            Problem: there is no preview, or the images have changed since.
        """
        applied.apply_preview(self.parameters)

    def discardPreview(self) -> None:
        """Take the preview of a doubtful result away; nothing is moved."""
        preview.remove(self.parameters)

    def saveReport(self, folder: str | Path) -> list[Path]:
        """Transform, figures and a page to read, into a folder; the files that were written.

        Raises:
            Problem: nothing was registered, or the folder cannot be written to.
        """
        return report.save(self.parameters, Path(folder))

    def startsFromPresent(self) -> None:
        """Offer the present alignment as the start where the images overlap as they lie."""
        mri, ius = self.parameters.mri, self.parameters.ius
        if mri is None or ius is None or mri is ius:
            return
        if None not in (mri.GetImageData(), ius.GetImageData()):
            self.parameters.fromPresent = volumes.overlap(mri, ius) >= OVERLAP

    def undo(self) -> None:
        """Back to the transform before the last registration, for good.

        Raises:
            Problem: there is no registration to undo.
        """
        applied.undo(self.parameters)

    def setUpViews(self) -> None:
        """MRI behind and ultrasound in front in all slice views.

        Raises:
            Problem: one of them is missing.
        """
        volumes.check_pair(self.parameters.mri, self.parameters.ius)
        views.set_up(self.parameters)

    def showBeside(self, beside: bool) -> None:
        """MRI and ultrasound in two linked slice views beside each other, or over each other.

        Raises:
            Problem: one of them is missing.
        """
        volumes.check_pair(self.parameters.mri, self.parameters.ius)
        views.show_beside(self.parameters, beside)

    def showCheckerboard(self, shown: bool) -> None:
        """The ultrasound in every other cube only, or all of it.

        Raises:
            Problem: MRI or ultrasound is missing.
        """
        volumes.check_pair(self.parameters.mri, self.parameters.ius)
        views.show_checkerboard(self.parameters, shown)

    def outcome(self) -> dict[str, Any]:
        """The last registration's report; empty before the first, and when what was accepted has
        been taken out of the scene."""
        return applied.outcome(self.parameters)

    def close(self) -> None:
        """End the worker and leave nothing behind; the logic is of no use afterwards."""
        self.onChange = lambda: None
        self._stop(_("CrossKEY was closed."))
        self.worker.stop()
        self._follower.stop()
        self.removeObservers()

    # What the scene tells

    def _sceneCloses(self, *_args: Any) -> None:
        if not self.installing:
            self._stop(_("The scene was closed; nothing was changed."))
        self._follower.stop()
        self._parameters = None

    def _sceneChanged(self, *_args: Any) -> None:
        """A scene that is loaded or undone mends references to nodes without a word to the
        parameters, which keep what they have read before."""
        if self._parameters is not None:
            self._parameters.parameterNode.Modified()
            applied.notice(self._parameters)

    def _parametersChanged(self, node: Any, _event: Any) -> None:
        if self._parameters is not None and self._parameters.parameterNode is node:
            self._follower.follow(self._parameters)
