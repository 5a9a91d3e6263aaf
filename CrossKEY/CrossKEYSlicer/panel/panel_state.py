"""What the panel shows for the state that the logic is in; reads the logic, writes widgets."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import qt
from slicer.i18n import tr as _

from .. import words
from ..landmarks import landmark_search
from ..landmarks.landmark_results import Found
from ..logic import CrossKEYLogic
from ..problem import Problem
from ..scene import applied, masks, preview, result_nodes, volumes
from ..work import model_store, sequence

NEARLY = 0.95  # of an expected time: shown as long as it is not done
LANDMARK_COLUMNS = (_("Name"), _("Score"), _("Spread (mm)"), _("Trust"))
TABLE_COLUMNS = (_("Residual (mm)"), _("Score"), _("Inlier"))


def tied_widgets(ui: Any) -> dict[str, Any]:
    """The widgets that show a parameter each, by the parameter's name."""
    named = [(widget.property("SlicerParameterName"), widget) for widget in vars(ui).values()]
    return {name: widget for name, widget in named if name}


def obstacle(check: Callable[..., None], *inputs: Any) -> str:
    """Why a button cannot be pressed, in words; empty when it can."""
    try:
        check(*inputs)
    except Problem as problem:
        return str(problem)
    return ""


def show_job(ui: Any, logic: CrossKEYLogic) -> None:
    """Progress and Cancel; what else may be pressed is for `show_inputs`."""
    job, busy = logic.job, logic.busy
    ui.progressBar.setVisible(busy)
    ui.cancelButton.setVisible(busy and not logic.installing)
    if job is None:
        return
    share, stage = job.share, words.stage(job.stage)
    expected = logic.parameters.lastSeconds
    if job.kind == "register" and job.running and expected:
        share = min(NEARLY, (monotonic() - job.begun) / expected)
        stage = _("{stage} (about {seconds:.0f} s in all)").format(stage=stage, seconds=expected)
    ui.progressBar.setMaximum(0 if share is None else 100)  # 0 shows a bar without an end
    ui.progressBar.setValue(round(100 * (share or 0)))
    say(ui, stage if job.running else ended(job), bad=job.state == "failed")


def ended(job: Any) -> str:
    if job.state != "done":
        return job.message
    if job.kind == "install":
        return _("PyTorch is installed.")
    if job.kind == "prepare":
        return _("The model for this patient is ready.")
    if job.kind == "similarity":
        return _("Similarity map shown.")
    seconds = job.result["seconds"]["total"]
    if job.kind == "landmarks":
        return words.landmarks(job.result["trust"], seconds)
    doubtful = job.result.get("verdict") == applied.DOUBTFUL
    done = _("Doubtful result") if doubtful else _("Refused")
    done = _("Registered") if job.result["accepted"] else done
    return _("{done} in {seconds:.0f} s.").format(done=done, seconds=seconds)


def say(ui: Any, text: str, bad: bool = False) -> None:
    """The one line under the buttons; problems in red instead of a window to click away."""
    ui.statusLabel.setText(text)
    ui.statusLabel.setStyleSheet(words.coloured(words.RED, is_dark(ui.statusLabel)) if bad else "")


def is_dark(widget: Any) -> bool:
    """Whether the window is dark, as in Slicer's dark style."""
    return widget.palette.color(qt.QPalette.Window).lightness() < 128


def show_inputs(ui: Any, logic: CrossKEYLogic) -> None:
    """What may be pressed, and which model will be used."""
    parameters, idle = logic.parameters, not logic.busy
    for name in ("mri", "ius", "transform", "mriMask", "iusMask"):
        getattr(ui, f"{name}Selector").setEnabled(idle)
    why = obstacle(volumes.check_pair, parameters.mri, parameters.ius)
    for mask in (parameters.mriMask, parameters.iusMask):
        why = why or obstacle(masks.check, mask)
    ui.registerButton.setEnabled(idle and not why)
    ui.registerButton.setToolTip(why or _("Find where the ultrasound lies in the MRI"))
    ui.sequenceButton.setVisible(sequence.browser_of(parameters.ius) is not None)
    ui.sequenceButton.setEnabled(ui.registerButton.enabled)
    ui.presentLabel.setText(words.start(parameters.fromPresent))
    ui.prepareButton.setEnabled(idle and parameters.mri is not None)
    why = obstacle(landmark_search.check_images, parameters)
    ui.findButton.setEnabled(idle and not why)
    ui.findButton.setToolTip(why or _("Find the points in the other volume"))
    ui.undoButton.setEnabled(idle and applied.can_undo(parameters))
    ui.undoButton.setToolTip(applied.undo_says(parameters))
    ui.afterCheckBox.setEnabled(applied.can_undo(parameters))
    both = not obstacle(volumes.check_pair, parameters.mri, parameters.ius)
    ui.besideCheckBox.setEnabled(both)
    ui.besideCheckBox.setChecked(parameters.beside)
    ui.checkerCheckBox.setEnabled(
        both and not parameters.beside and bool(applied.outcome(parameters))
    )
    ui.checkerCheckBox.setChecked(parameters.checkerboard)
    # Beside each other, nothing lies over anything.
    for over in (ui.fadeSlider, ui.blinkCheckBox, ui.blinkRateSpinBox):
        over.setEnabled(not parameters.beside)
    ui.forgetButton.setEnabled(idle and bool(parameters.modelPath))
    text, colour = _("General model. Prepare trains one for this patient."), ""
    try:
        if model_store.usable_model(parameters):
            text = _("This patient's own model.")
    except Problem as problem:
        text, colour = str(problem), words.coloured(words.AMBER, is_dark(ui.modelLabel))
    ui.modelLabel.setText(text)
    ui.modelLabel.setStyleSheet(colour)


def show_outcome(ui: Any, logic: CrossKEYLogic) -> None:
    """Verdict, what can be decided, and table."""
    outcome = logic.outcome()
    said = words.verdict(outcome)
    waiting = bool(preview.pending(logic.parameters))
    for button in (ui.applyButton, ui.discardButton):
        button.setVisible(waiting)
    ui.applyButton.setEnabled(not outcome.get("outdated"))
    ui.verdictLabel.setText(said.text)
    ui.verdictLabel.setStyleSheet(said.style)
    rows = result_nodes.match_rows(logic.parameters)
    table = ui.matchTable
    table.setColumnCount(len(TABLE_COLUMNS))
    table.setHorizontalHeaderLabels(list(TABLE_COLUMNS))
    table.horizontalHeader().setStretchLastSection(True)
    table.setRowCount(len(rows))
    for index, row in enumerate(rows):
        cells = (f"{row[0]:.1f}", f"{row[1]:.2f}", _("yes") if row[2] else _("no"))
        for column, text in enumerate(cells):
            table.setItem(index, column, qt.QTableWidgetItem(text))


def show_landmarks(ui: Any, found: list[Found]) -> None:
    """The table; the selected point stays selected if there is one of its name."""
    table = ui.landmarkTable
    was = selected_name(ui)
    table.blockSignals(True)  # until all rows are as they shall be
    table.setColumnCount(len(LANDMARK_COLUMNS))
    table.setHorizontalHeaderLabels(list(LANDMARK_COLUMNS))
    table.horizontalHeader().setStretchLastSection(True)
    table.setRowCount(len(found))
    table.clearSelection()
    table.setCurrentCell(-1, -1)
    for index, one in enumerate(found):
        said = words.trust(one)
        cells = (one.name, f"{one.score:.2f}", f"{one.spread_mm:.1f}", said.text)
        items = [qt.QTableWidgetItem(text) for text in cells]
        items[-1].setBackground(qt.QBrush(qt.QColor(said.colour)))
        items[-1].setForeground(qt.QBrush(qt.QColor("white")))
        items[-1].setToolTip(said.text)
        for column, item in enumerate(items):
            table.setItem(index, column, item)
    table.resizeColumnsToContents()
    table.blockSignals(False)
    names = [one.name for one in found]
    if was in names:
        table.selectRow(names.index(was))


def selected_name(ui: Any) -> str:
    """Of the landmark that is selected in the table; empty without."""
    row = ui.landmarkTable.currentRow()
    return ui.landmarkTable.item(row, 0).text() if row >= 0 else ""
