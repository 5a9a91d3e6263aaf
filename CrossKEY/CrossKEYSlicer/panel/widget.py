"""The panel: clicks go to the logic, and what the logic says is shown. No work is done here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .. import words
from ..landmarks import landmark_results
from ..logic import SCENE_CHANGED, CrossKEYLogic
from ..problem import Problem
from ..scene import applied, preview, result_nodes, training_nodes, views
from ..work import model_store
from . import install, panel_state
from .auto import AutoFind, AutoRegister
from .blink import Blink
from .cards import Cards
from .landmarks_section import LandmarksSection
from .review_section import ReviewSection
from .toolbox import StatusDisplay


class CrossKEYWidget(
    ScriptedLoadableModuleWidget, VTKObservationMixin, ReviewSection, LandmarksSection
):
    """Opening it imports nothing heavy, starts no process and installs nothing."""

    def __init__(self, parent: Any = None) -> None:
        self.logic: Any = None
        self.ask: Callable[[str], bool] = slicer.util.confirmOkCancelDisplay
        self.pickFolder: Callable[[], str] = qt.QFileDialog.getExistingDirectory
        self._pair: tuple[Any, Any] = (None, None)
        self._parameters: Any = None
        self._tie = 0
        self._shown: dict[str, Any] = {}
        self._folder = ""  # of synthetic ultrasound, as it was shown last
        self._found: list[landmark_results.Found] = []
        # Last, and once: without a parent it builds the whole panel, observers included.
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/CrossKEY.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = CrossKEYLogic()
        self.logic.onChange = self.onJobChanged
        self.status = StatusDisplay()
        self.blink = Blink(lambda opacity: views.fade(self._parameters, opacity))
        self._beforeAfterKey = qt.QShortcut(qt.QKeySequence("B"), panel)
        self._beforeAfterKey.activated.connect(self.ui.afterCheckBox.click)
        self.cards = Cards(lambda names: self.ui.cardsLabel.setText(words.cards(names)))
        self.autoRegister = AutoRegister(self.logic, self.tellProblem)
        self.autoFind = AutoFind(self.logic, self.tellProblem)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        for event in SCENE_CHANGED:
            self.addObserver(scene, getattr(scene, event), self.onSceneChanged)
        self._connectButtons()
        panel_state.show_job(self.ui, self.logic)
        self._follow()

    def _connectButtons(self) -> None:
        ui = self.ui
        ui.registerButton.clicked.connect(self.onRegister)
        ui.prepareButton.clicked.connect(self.onPrepare)
        ui.placeButton.clicked.connect(self.onPlace)
        ui.findButton.clicked.connect(self.onFind)
        ui.similarityCheckBox.clicked.connect(self.onSimilarity)
        ui.landmarkTable.itemSelectionChanged.connect(self.onLandmarkSelected)
        ui.cancelButton.clicked.connect(self.onCancel)
        ui.forgetButton.clicked.connect(self.onForget)
        ui.chartButton.clicked.connect(self.onChart)
        ui.viewsButton.clicked.connect(self.onViews)
        ui.undoButton.clicked.connect(self.onUndo)
        ui.sequenceButton.clicked.connect(self.onSequence)
        ui.reportButton.clicked.connect(self.onReport)
        ui.besideCheckBox.clicked.connect(self.onBeside)
        ui.checkerCheckBox.clicked.connect(self.onCheckerboard)
        ui.blinkCheckBox.toggled.connect(self.onBlink)
        ui.applyButton.clicked.connect(self.onApply)
        ui.discardButton.clicked.connect(self.onDiscard)
        ui.advancedSection.contentsCollapsed.connect(self.onAdvanced)
        ui.measureButton.clicked.connect(self.onMeasure)
        ui.afterCheckBox.clicked.connect(self.onAfter)
        ui.fadeSlider.valueChanged.connect(self.onFade)
        ui.matchTable.itemSelectionChanged.connect(self.onMatchSelected)
        ui.syntheticFolderEdit.filters = ctk.ctkPathLineEdit.Dirs  # else no folder can be picked
        ui.syntheticFolderEdit.currentPathChanged.connect(self.onSyntheticFolder)
        ui.syntheticFolderEdit.validInputChanged.connect(self.onFolderValid)

    def enter(self) -> None:
        self._follow()

    def exit(self) -> None:
        """Work goes on while another module is shown."""

    def cleanup(self) -> None:
        """The module is unloaded or reloaded, or Slicer ends."""
        self.ui.blinkCheckBox.setChecked(False)
        self._unfollow()
        self.autoRegister.stop()
        self.autoFind.stop()
        self.cards.stop()
        self.status.clear()
        self.removeObservers()
        self.logic.close()

    # Scene and parameters

    def _follow(self) -> None:
        """Show the scene's parameters from now on."""
        parameters = self.logic.parameters
        if parameters is self._parameters:
            return
        self._unfollow()
        self._parameters = parameters
        # Not `connectGui`, which in many versions of Slicer returns no tag to disconnect by: then
        # every panel and scene that was ever open would go on writing into the parameters.
        self._tie = parameters.connectParametersToGui(panel_state.tied_widgets(self.ui))
        modified = vtk.vtkCommand.ModifiedEvent
        self.addObserver(
            parameters.parameterNode, modified, self.onParametersChanged, priority=-1.0
        )  # after all parameters have been read
        self.onParametersChanged()
        panel_state.show_outcome(self.ui, self.logic)

    def _unfollow(self) -> None:
        if self._parameters is None:
            return
        self._parameters.disconnectGui(self._tie)
        modified = vtk.vtkCommand.ModifiedEvent
        self.removeObserver(self._parameters.parameterNode, modified, self.onParametersChanged)
        self._parameters = None

    def onSceneStartClose(self, *_args: Any) -> None:
        self._unfollow()

    def onSceneChanged(self, *_args: Any) -> None:
        """The scene was closed, loaded, restored, or a step was undone."""
        self._follow()

    def onParametersChanged(self, *_args: Any) -> None:
        if self._parameters is None:
            return
        self._offerStart()
        panel_state.show_inputs(self.ui, self.logic)
        result_nodes.show_or_hide(self._parameters)
        self._showFolder()
        outcome = {**self.logic.outcome(), "waits": preview.pending(self._parameters)}
        if outcome != self._shown:
            self._shown = outcome
            panel_state.show_outcome(self.ui, self.logic)
        self._showLandmarks()
        p = self._parameters
        self.blink.pace(p.blinkRate)
        self.autoRegister.follow(p.ius if p.autoRegister else None)
        self.autoFind.follow(p.landmarkPoints if p.landmarksAgain else None)

    def _offerStart(self) -> None:
        """For a newly chosen pair alone: after that it is the person's choice."""
        pair = (self._parameters.mri, self._parameters.ius)
        if pair != self._pair:
            self._pair = pair
            self.logic.startsFromPresent()

    def _showFolder(self) -> None:
        """Only when it is another: what a person is about to type must not be written over."""
        folder = self._parameters.syntheticFolder
        if folder != self._folder:
            self._folder = folder
            self.ui.syntheticFolderEdit.currentPath = folder

    # Clicks

    def onRegister(self) -> None:
        with self.told():
            install.ensure_torch(self.logic, self.ask)
            self.logic.startRegistration()

    def onPrepare(self) -> None:
        with self.told():
            written = self.ui.syntheticFolderEdit.currentPath
            if written and not self._parameters.syntheticFolder:
                raise Problem(_("There is no folder '{folder}'.").format(folder=written))
            install.ensure_torch(self.logic, self.ask)
            self.logic.startPreparation()
            self._showProgress()

    def onCancel(self) -> None:
        self.autoRegister.forget()
        self.autoFind.forget()
        self.logic.cancel()

    def onForget(self) -> None:
        model_store.forget(self._parameters)

    def onChart(self) -> None:
        training_nodes.show_chart(self._parameters)

    def onSequence(self) -> None:
        with self.told():
            install.ensure_torch(self.logic, self.ask)
            found = self.logic.registerSequence(self._parameters.mri, self._parameters.ius)
            done, count = found.table.GetNumberOfRows(), found.count
            self.tell(
                _("{done} of {count} items are registered; see the table.").format(
                    done=done, count=count
                )
            )

    def onAdvanced(self, collapsed: bool) -> None:
        if not collapsed:
            self.cards.ask()
            self._showLog()

    def _showLog(self) -> None:
        self.ui.logText.setPlainText("\n".join(self.logic.worker.log))

    def onSyntheticFolder(self, path: str) -> None:
        if self._parameters is not None:
            self._folder = path
            self._parameters.syntheticFolder = path

    def onFolderValid(self, valid: bool) -> None:
        """Nothing else tells of a field that was emptied or holds no folder."""
        if not valid:
            self.onSyntheticFolder("")

    def onJobChanged(self) -> None:
        """The work has gone on or ended."""
        panel_state.show_job(self.ui, self.logic)
        panel_state.show_inputs(self.ui, self.logic)
        job = self.logic.job
        if job.running:
            self.status.progress(words.stage(job.stage), job.share)
            return
        self._showLog()
        said = panel_state.ended(job)
        self.status.progress(said, 1.0)
        if job.kind == "install":
            return  # what it was for comes next
        if job.kind == "register" and job.state == "done":
            panel_state.show_outcome(self.ui, self.logic)
            self.ui.reviewSection.collapsed = not applied.can_undo(self._parameters)
            arranged = self._parameters.viewsSetUp or preview.pending(self._parameters)
            if not arranged:  # later they are as the person has arranged them
                self.logic.setUpViews()
            self.status.annotate(said, bool(job.result["accepted"]))
        self.autoRegister.beginIfDue()
        self.autoFind.beginIfDue()
        if job.state == "done" and job.kind == "landmarks":
            self._showLandmarks()
            self.onLandmarkSelected()
        elif job.state == "done" and job.kind == "similarity":
            with self.told():
                self._mapSelected()  # of another point, when that was selected meanwhile
