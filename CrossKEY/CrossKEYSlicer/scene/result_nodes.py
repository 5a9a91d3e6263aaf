"""A registration's keypoints, matches and residuals as nodes; a second one fills the same nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import chain

SHOWN = 300  # matches; thousands of markups would slow Slicer down and hide the image
FOLDER = "CrossKEY"
POINT_SETS = {  # name, colour (red, green, blue), diameter in mm
    "mriKeypoints": (_("MRI keypoints"), (0.21, 0.77, 0.94), 1.5),
    "iusKeypoints": (_("iUS keypoints"), (1.0, 0.69, 0.0), 1.5),
    "inliers": (_("Matched inliers"), (0.2, 0.9, 0.3), 2.0),
}
RESIDUAL = "Residual (mm)"
COLUMNS = (RESIDUAL, "Score", "Inlier", "R", "A", "S", "iUS R", "iUS A", "iUS S")
RESIDUAL_RANGE = (0.0, 5.0)  # mm, over the colours of the lines
RESIDUAL_COLOURS = "vtkMRMLColorTableNodeWarm1"  # yellow to red


def shown_matches(matches: dict[str, list]) -> dict[str, np.ndarray]:
    """The first of the worker's answer, of which any number is spread evenly over the ultrasound;
    best first, one entry per list of the answer."""
    score = np.asarray(matches["score"], float)[:SHOWN]
    chosen = np.argsort(-score, kind="stable")
    return {name: np.asarray(values)[chosen] for name, values in matches.items()}


def show_matches(parameters: CrossKEYParameters, matches: dict[str, list]) -> None:
    """Fill markups, table and lines from the worker's ``matches``."""
    best = shown_matches(matches)
    inlier = best["inlier"].astype(bool)
    mri, ius = best["mri"].reshape(-1, 3), best["ius"].reshape(-1, 3)
    _fill_points(parameters, "mriKeypoints", mri)
    _fill_points(parameters, "iusKeypoints", ius)
    _fill_points(parameters, "inliers", mri[inlier])
    _fill_table(parameters, best, mri, ius)
    _dress_lines(parameters)
    show_or_hide(parameters)
    place_matches(parameters)
    group(*(getattr(parameters, name) for name in (*POINT_SETS, "matchLines", "matchTable")))


def show_or_hide(parameters: CrossKEYParameters) -> None:
    """Draw what the person wants to see of the results."""
    shown = {
        "mriKeypoints": parameters.keypointsShown,
        "iusKeypoints": parameters.keypointsShown,
        "inliers": parameters.inliersShown,
        "matchLines": parameters.linesShown,
    }
    for name, visible in shown.items():
        node = getattr(parameters, name)
        display = node.GetDisplayNode() if node is not None else None
        if display is not None:
            display.SetVisibility(visible)


def clear_matches(parameters: CrossKEYParameters) -> None:
    """Empty the nodes that an earlier registration has filled; they stay for the next."""
    for name in POINT_SETS:
        node = getattr(parameters, name)
        if node is not None:
            node.SetLocked(False)
            node.RemoveAllControlPoints()
            node.SetLocked(True)
    if parameters.matchTable is not None:
        parameters.matchTable.SetAndObserveTable(vtk.vtkTable())
    if parameters.matchLines is not None:
        parameters.matchLines.SetAndObservePolyData(vtk.vtkPolyData())


def node_of(parameters: CrossKEYParameters, name: str, kind: str, title: str) -> Any:
    """The node kept under a parameter's name; a new one when there is none or it was deleted."""
    node = getattr(parameters, name)
    if node is None or not slicer.mrmlScene.IsNodePresent(node):
        node = slicer.mrmlScene.AddNewNodeByClass(kind, title)
        setattr(parameters, name, node)
    return node


def hang_with(node: Any, image: Any) -> None:
    """Under the same transform as an image, whose own coordinates the node's points are in."""
    parent = image.GetParentTransformNode()
    node.SetAndObserveTransformNodeID(parent.GetID() if parent else None)


def _fill_points(parameters: CrossKEYParameters, name: str, points: np.ndarray) -> None:
    title, colour, size = POINT_SETS[name]
    node = node_of(parameters, name, "vtkMRMLMarkupsFiducialNode", title)
    node.CreateDefaultDisplayNodes()
    node.SetLocked(False)
    slicer.util.updateMarkupsControlPointsFromArray(node, points)
    node.SetLocked(True)
    display = node.GetDisplayNode()
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetColor(*colour)
    display.SetSelectedColor(*colour)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(size)


def _fill_table(
    parameters: CrossKEYParameters, best: dict[str, np.ndarray], mri: np.ndarray, ius: np.ndarray
) -> None:
    node = node_of(parameters, "matchTable", "vtkMRMLTableNode", _("CrossKEY matches"))
    figures = (best["residual_mm"], best["score"], best["inlier"].astype(int))
    values = np.column_stack([*figures, mri, ius])
    table = vtk.vtkTable()
    for title, column in zip(COLUMNS, values.T, strict=True):
        array = numpy_to_vtk(np.ascontiguousarray(column), deep=True)
        array.SetName(title)
        table.AddColumn(array)
    node.SetAndObserveTable(table)


def match_rows(parameters: CrossKEYParameters) -> np.ndarray:
    """The table's numbers ``[K, 9]``, best match first; no rows without a table."""
    node = parameters.matchTable
    if node is None or node.GetTable() is None or node.GetNumberOfRows() == 0:
        return np.empty((0, len(COLUMNS)))
    columns = [slicer.util.arrayFromTableColumn(node, title) for title in COLUMNS]
    return np.column_stack(columns)


def match_place(parameters: CrossKEYParameters, row: int) -> np.ndarray:
    """Where the MRI end of a match lies in the world, RAS mm."""
    point = match_rows(parameters)[row, 3:6]
    to_world = chain.between(parameters.registeredMri.GetParentTransformNode(), None)
    return chain.moved(to_world, point)


def place_matches(parameters: CrossKEYParameters) -> None:
    """Everything to where MRI and ultrasound lie now; no lines where they cannot be right."""
    mri, ius = parameters.registeredMri, parameters.registeredIus
    images = {"mriKeypoints": mri, "iusKeypoints": ius, "inliers": mri, "matchLines": mri}
    for name, image in images.items():
        node = getattr(parameters, name)
        if node is not None and image is not None:
            hang_with(node, image)
    lines = parameters.matchLines
    if lines is None:
        return
    rows = match_rows(parameters)
    try:
        now = chain.present_alignment(mri, ius) if mri and ius else None
    except Problem:  # a bent transform
        now = None
    if now is None:
        rows, now = rows[:0], np.eye(4)
    ends = np.stack([rows[:, 3:6], chain.moved(now, rows[:, 6:9])], axis=1)
    lines.SetAndObservePolyData(_drawn(ends, rows[:, 0]))


def _drawn(ends: np.ndarray, residuals: np.ndarray) -> vtk.vtkPolyData:
    """A line for each pair of points ``[K, 2, 3]``, with its residual."""
    points, lines = vtk.vtkPoints(), vtk.vtkCellArray()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(ends.reshape(-1, 3)), deep=True))
    pairs = np.arange(2 * len(ends), dtype=np.int64)
    lines.SetData(2, numpy_to_vtk(pairs, deep=True, array_type=vtk.VTK_ID_TYPE))
    residual = numpy_to_vtk(np.repeat(residuals, 2), deep=True)
    residual.SetName(RESIDUAL)
    drawn = vtk.vtkPolyData()
    drawn.SetPoints(points)
    drawn.SetLines(lines)
    drawn.GetPointData().SetScalars(residual)
    return drawn


def _dress_lines(parameters: CrossKEYParameters) -> None:
    node = node_of(parameters, "matchLines", "vtkMRMLModelNode", _("CrossKEY matches, residual"))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(RESIDUAL_COLOURS)
    display.SetActiveScalarName(RESIDUAL)
    display.SetScalarVisibility(True)
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    display.SetScalarRange(*RESIDUAL_RANGE)
    display.SetLineWidth(2)
    display.SetVisibility2D(True)


def group(*nodes: Any) -> None:
    """Into the module's folder of the subject hierarchy."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    top = tree.GetSceneItemID()
    folder = tree.GetItemChildWithName(top, FOLDER) or tree.CreateFolderItem(top, FOLDER)
    for node in nodes:
        item = tree.GetItemByDataNode(node) or tree.CreateItem(folder, node)
        tree.SetItemParent(item, folder)
