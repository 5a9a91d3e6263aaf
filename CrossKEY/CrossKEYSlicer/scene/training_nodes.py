"""Loss and held-out precision while a model is trained: a table and its plot, in the scene."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from .result_nodes import node_of

STEP, LOSS, PRECISION = "Step", "Loss", "Precision within 5 mm"
SERIES = {"lossSeries": (LOSS, (0.85, 0.33, 0.1)), "precisionSeries": (PRECISION, (0.0, 0.45, 0.7))}


def begin_training(parameters: CrossKEYParameters) -> None:
    """Empty table, and the chart that shows it."""
    table = node_of(parameters, "trainingTable", "vtkMRMLTableNode", _("CrossKEY training"))
    table.RemoveAllColumns()
    for name in (STEP, LOSS, PRECISION):
        column = table.AddColumn(vtk.vtkDoubleArray())
        column.SetName(name)
    chart = node_of(parameters, "trainingChart", "vtkMRMLPlotChartNode", _("CrossKEY training"))
    chart.SetTitle(_("Training"))
    chart.SetXAxisTitle(STEP)
    for parameter, (name, colour) in SERIES.items():
        series = node_of(parameters, parameter, "vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(STEP)
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetColor(*colour)
        if not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())


def add_training_step(
    parameters: CrossKEYParameters, step: int, loss: float | None, precision: float | None
) -> None:
    """Append a row; a figure that was not measured at this step keeps its last value."""
    table = parameters.trainingTable
    if table is None or table.GetTable() is None:
        return
    row = table.AddEmptyRow()
    data = table.GetTable()
    for name, value in ((STEP, step), (LOSS, loss), (PRECISION, precision)):
        column = data.GetColumnByName(name)
        last = column.GetValue(row - 1) if row else 0.0
        column.SetValue(row, last if value is None else float(value))
    data.Modified()
    table.Modified()


def show_chart(parameters: CrossKEYParameters) -> None:
    """In a layout of the application that has room for a plot."""
    logic = slicer.app.applicationLogic().GetModuleLogic("Plots")
    if parameters.trainingChart is not None and logic is not None:
        logic.ShowChartInLayout(parameters.trainingChart)
