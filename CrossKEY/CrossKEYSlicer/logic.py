"""What the module does, without any widget: also for the Python console and other modules.

logic = CrossKEYLogic()
result = logic.register(mriNode, iusNode)
print(result["accepted"], result["reasons"])
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer import vtkMRMLLinearTransformNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from . import applied, chain, landmarks, model_store, training_nodes, views, volumes, words
from .follow import MatchFollower
from .job import Job, new_job
from .parameters import CrossKEYParameters
from .problem import Cancelled, Problem
from .process import WorkerProcess, shared_worker

POLL_S = 0.01
# Ends of many changes at once: closing, loading and restoring are batches, undoing is none.
SCENE_CHANGED = ("EndBatchProcessEvent", "EndUndoEvent", "EndRedoEvent")


class CrossKEYLogic(ScriptedLoadableModuleLogic, VTKObservationMixin):
    """Registration, preparation and what goes with them.

    Choices and results live in the scene's parameter node, so two logics of one scene share them.

    Args:
        worker: the process that computes; the application's one when missing.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        VTKObservationMixin.__init__(self)
        self.worker = worker or shared_worker()
        self.job: Job | None = None
        self.onChange: Callable[[], None] = lambda: None  # called whenever the job has changed
        self._parameters: CrossKEYParameters | None = None
        self._follower = MatchFollower()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._sceneCloses)
        for event in SCENE_CHANGED:
            self.addObserver(scene, getattr(scene, event), self._sceneChanged)
        slicer.app.aboutToQuit.connect(self.close)

    @property
    def parameters(self) -> CrossKEYParameters:
        node = self.getParameterNode()
        if self._parameters is None or self._parameters.parameterNode is not node:
            # Of equal priority, VTK calls the first observer last. That must not be the one by
            # which a parameter is kept up to date, so one of lower priority comes first.
            modified = vtk.vtkCommand.ModifiedEvent
            if not self.hasObserver(node, modified, self._parametersChanged):
                self.addObserver(node, modified, self._parametersChanged, priority=-1.0)
            self._parameters = CrossKEYParameters(node)
            self._follower.follow(self._parameters)
        return self._parameters

    @property
    def busy(self) -> bool:
        return self.job is not None and self.job.running

    @property
    def installing(self) -> bool:
        """Which nobody can stop half-way."""
        return self.busy and self.job is not None and self.job.kind == "install"

    # For the console: these return when the work is done, and Slicer goes on answering meanwhile

    def register(
        self,
        mri: vtkMRMLScalarVolumeNode,
        ius: vtkMRMLScalarVolumeNode,
        transform: vtkMRMLLinearTransformNode | None = None,
        fromPresent: bool = False,
    ) -> dict[str, Any]:
        """Register an ultrasound to an MRI and move it there, unless that is refused.

        Args:
            transform: takes the result; the one in use, or a new one, when missing.
            fromPresent: search around the alignment that the scene has.

        Returns:
            The report (``accepted``, ``reasons``, ``confidence``, ``predicted_tre_mm`` ...).

        Raises:
            Problem: it cannot be done; the text says why.
        """
        self._checkIdle()
        chosen = {"mri": mri, "ius": ius, "fromPresent": fromPresent}
        self._choose(**chosen, **({} if transform is None else {"transform": transform}))
        self.startRegistration()
        return self._wait()

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
        return landmarks.errors(*pair, parameters.registeredTransform, correction)

    # For the panel: these return at once

    def startRegistration(self) -> None:
        """
        Raises:
            Problem: the input cannot be used.
        """
        parameters = self.parameters
        mri, ius = parameters.mri, parameters.ius
        self._checkIdle()
        volumes.check_pair(mri, ius)
        model = model_store.usable_model(parameters)
        initial = chain.present_alignment(mri, ius)
        if parameters.transform is not None:
            chain.check_place(mri, ius, parameters.transform)
        with new_job("register", mri, ius) as job:
            request = {
                "do": "register",
                "mri": volumes.write_volume(mri, job.folder / "mri.nrrd"),
                "ius": volumes.write_volume(ius, job.folder / "ius.nrrd"),
                "model": model,
                "initial": initial.tolist() if parameters.fromPresent else None,
                "device": parameters.device,
            }
            self._begin(job, request)

    def startPreparation(self) -> None:
        """
        Raises:
            Problem: the input cannot be used.
        """
        parameters = self.parameters
        self._checkIdle()
        volumes.check_volume(parameters.mri, _("MRI"))
        more = (parameters.secondContrast, parameters.thirdContrast)
        nodes = list(dict.fromkeys([parameters.mri, *filter(None, more)]))
        for node in nodes:
            volumes.check_volume(node, _("MRI"))
        output = model_store.model_path_for(parameters.mri)
        output.parent.mkdir(parents=True, exist_ok=True)
        training_nodes.begin_training(parameters)
        with new_job("prepare", *nodes) as job:
            files = [job.folder / f"{index}.nrrd" for index in range(len(nodes))]
            request = {
                "do": "prepare",
                "mri": [volumes.write_volume(*pair) for pair in zip(nodes, files, strict=True)],
                "synthetic_us": parameters.syntheticFolder or None,
                "output": str(output),
                "minutes": parameters.minutes,
                "device": parameters.device,
            }
            self._begin(job, request)

    def cancel(self) -> None:
        """Stop the work; a preparation goes on from where it was when it is started again."""
        if not self.installing:
            self._stop(_("Cancelled."))

    def showAfter(self, after: bool) -> None:
        """Show the scene after registration, or as it was before."""
        applied.show(self.parameters, after)

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

    def outcome(self) -> dict[str, Any]:
        """The last registration's report; empty before the first, and when what was accepted has
        been taken out of the scene."""
        text = self.parameters.outcome
        report = json.loads(text) if text else {}
        gone = report.get("accepted") and applied.in_place(self.parameters) is None
        return {} if gone else report

    def close(self) -> None:
        """End the worker and leave nothing behind; the logic is of no use afterwards."""
        self.onChange = lambda: None
        self._stop(_("CrossKEY was closed."))
        self.worker.stop()
        self._follower.stop()
        self.removeObservers()

    # The job

    def _checkIdle(self) -> None:
        if self.busy or self.worker.busy:
            raise Problem(_("CrossKEY is at work already; wait, or cancel that first."))

    def _begin(self, job: Job, request: dict[str, Any]) -> None:
        self.job = job
        self.worker.ask(request, lambda answer: self._answered(job, answer))
        self.onChange()

    def _answered(self, job: Job, answer: dict[str, Any]) -> None:
        if not job.running:
            return
        kind = answer["kind"]
        try:
            if kind == "progress":
                job.stage = answer["stage"]
            elif kind == "training":
                self._trained(job, answer)
            elif kind == "result":
                self._finish(job, answer)
            else:
                job.end("failed", answer["message"])
        except Exception as error:  # of this answer; without an end the panel would wait for ever
            known = isinstance(error, Problem)
            job.end("failed", str(error) if known else f"{type(error).__name__}: {error}")
        self.onChange()

    def _trained(self, job: Job, answer: dict[str, Any]) -> None:
        step, steps = answer["step"], answer["steps"]
        figures = (answer["loss"], answer["precision"])
        job.stage = words.training(step, steps, *figures)
        job.share = step / steps if steps else None
        training_nodes.add_training_step(self.parameters, step, *figures)

    def _finish(self, job: Job, answer: dict[str, Any]) -> None:
        if not all(slicer.mrmlScene.IsNodePresent(node) for node in job.inputs):
            raise Problem(
                _("A volume was removed while CrossKEY was at work; nothing was changed.")
            )
        job.result = {k: v for k, v in answer.items() if k not in ("id", "kind")}
        if job.kind == "prepare":
            path = Path(answer["output"])
            model_store.remember(self.parameters, path, volumes.fingerprint(job.inputs[0]))
        else:
            self._showRegistration(job)
        job.share = 1.0
        job.end("done")

    def _showRegistration(self, job: Job) -> None:
        """A refused registration changes nothing but the verdict."""
        result = job.result
        matches = result.pop("matches")
        if result["accepted"]:
            applied.apply(self.parameters, *job.inputs, result["matrix_ras"], matches)
        self.parameters.outcome = json.dumps(result)

    def _stop(self, message: str) -> None:
        if self.busy and self.job is not None:
            self.job.end("cancelled", message)
            self.worker.stop()
            self.onChange()

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

    def _wait(self) -> dict[str, Any]:
        job = self.job
        assert job is not None
        while job.running:
            slicer.app.processEvents()
            time.sleep(POLL_S)
        if job.state == "done":
            return job.result
        raise (Cancelled if job.state == "cancelled" else Problem)(job.message)
