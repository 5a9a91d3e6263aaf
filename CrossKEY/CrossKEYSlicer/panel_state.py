"""What the panel shows for the state that the logic is in; reads the logic, writes widgets."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from . import applied, model_store, result_nodes, volumes, words
from .logic import CrossKEYLogic
from .problem import Problem

TABLE_COLUMNS = (_("Residual (mm)"), _("Score"), _("Inlier"))


def tied_widgets(ui: Any) -> dict[str, Any]:
    """The widgets that show a parameter each, by the parameter's name."""
    named = [(widget.property("SlicerParameterName"), widget) for widget in vars(ui).values()]
    return {name: widget for name, widget in named if name}


def obstacle(logic: CrossKEYLogic) -> str:
    """Why Register cannot be pressed, in words; empty when it can."""
    parameters = logic.parameters
    try:
        volumes.check_pair(parameters.mri, parameters.ius)
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
    known = job.share is not None
    ui.progressBar.setMaximum(100 if known else 0)  # 0 shows a bar without an end
    ui.progressBar.setValue(round(100 * (job.share or 0)))
    say(ui, job.stage if job.running else ended(job), bad=job.state == "failed")


def ended(job: Any) -> str:
    if job.state != "done":
        return job.message
    if job.kind == "install":
        return _("PyTorch is installed.")
    if job.kind == "prepare":
        return _("The model for this patient is trained.")
    seconds = job.result["seconds"]["total"]
    done = _("Registered") if job.result["accepted"] else _("Refused")
    return _("{done} in {seconds:.0f} s.").format(done=done, seconds=seconds)


def say(ui: Any, text: str, bad: bool = False) -> None:
    """The one line under the buttons; problems in red instead of a window to click away."""
    ui.statusLabel.setText(text)
    ui.statusLabel.setStyleSheet(f"color: {words.RED}; font-weight: bold;" if bad else "")


def show_inputs(ui: Any, logic: CrossKEYLogic) -> None:
    """What may be pressed, and which model will be used."""
    parameters, idle = logic.parameters, not logic.busy
    why = obstacle(logic)
    ui.registerButton.setEnabled(idle and not why)
    ui.registerButton.setToolTip(why or _("Find where the ultrasound lies in the MRI"))
    ui.prepareButton.setEnabled(idle and parameters.mri is not None)
    ui.undoButton.setEnabled(idle and applied.in_place(parameters) is not None)
    ui.forgetButton.setEnabled(idle and bool(parameters.modelPath))
    text, colour = _("General model; prepare this patient's MRI for a better one."), ""
    try:
        if model_store.usable_model(parameters):
            text = _("This patient's own model.")
    except Problem as problem:
        text, colour = str(problem), f"color: {words.AMBER}; font-weight: bold;"
    ui.modelLabel.setText(text)
    ui.modelLabel.setStyleSheet(colour)


def show_outcome(ui: Any, logic: CrossKEYLogic) -> None:
    """Verdict and table."""
    said = words.verdict(logic.outcome())
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
