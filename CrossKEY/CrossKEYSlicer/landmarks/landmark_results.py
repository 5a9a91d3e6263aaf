"""Landmarks that were found, as nodes: points, and a table of how sure they are. Finding again
fills the same nodes.

Both hold the own coordinates of the image that the points were found in; the points hang under
its transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from ..parameters import CrossKEYParameters
from ..problem import Problem
from ..scene import chain
from ..scene.result_nodes import group, hang_with, node_of
from .landmark_search import Question

GOOD, CHECK, ABSENT = "good", "check", "absent"  # as the library says
GOOD_COLOUR, OTHER_COLOUR = (0.2, 0.9, 0.3), (1.0, 0.45, 0.1)
GLYPH_MM = 3.5
NAME, TRUST, WHY = "Name", "Trust", "Why"
FIGURES = ("Score", "Spread (mm)", "R", "A", "S", "Given R", "Given A", "Given S")
CLOSE_MM = 1e-3  # between a point and what a file or a copy of it holds


@dataclass(frozen=True)
class Found:
    """A landmark in the other image.

    Attributes:
        name: as that of the point that was given.
        score: cosine similarity, at most 1.
        spread_mm: how far its support disagrees.
        place: ``[3]`` RAS mm in the own coordinates of the image it was found in.
        given: ``[3]`` RAS mm in those of the image it was placed in.
        trust: "good", "check" or "absent".
        why: what speaks against "good"; see `CrossKEYLib.landmarks.found.Landmarks`.
    """

    name: str
    score: float
    spread_mm: float
    place: np.ndarray
    given: np.ndarray
    trust: str
    why: tuple[str, ...]


def show(parameters: CrossKEYParameters, asked: Question, answer: dict[str, Any]) -> None:
    """Fill points and table from the worker's answer, which becomes the report for the console."""
    if parameters.foundLandmarks is asked.node:
        parameters.foundLandmarks = None  # found ones, followed on into a third image, stay
    parameters.foundFrom, parameters.foundTo = asked.from_volume, asked.to_volume
    places = np.asarray(answer["points"], float).reshape(-1, 3)
    why = [tuple(reasons) for reasons in answer["why"]]
    figures = (answer["scores"], answer["spreads"], places, asked.points)
    columns = (asked.labels, *figures, answer["found"], why)
    found = [Found(*row) for row in zip(*columns, strict=True)]
    _fill_points(parameters, found)
    _fill_table(parameters, found)
    place(parameters)
    group(parameters.foundLandmarks, parameters.landmarkTable)
    to_world = chain.between(asked.to_volume.GetParentTransformNode(), None)
    answer.update(
        labels=asked.labels,
        points=chain.moved(to_world, places).tolist(),
        trust=[one.trust for one in found],
    )
    parameters.parameterNode.Modified()  # who shows the landmarks, whoever has asked for them


def rows(parameters: CrossKEYParameters) -> list[Found]:
    """What was found and still lies there: nothing once an image is gone, and no point that was
    moved since or whose finding was undone."""
    table, node = parameters.landmarkTable, parameters.foundLandmarks
    if None in (table, node, parameters.foundTo, parameters.foundFrom) or table.GetTable() is None:
        return []
    columns = [table.GetTable().GetColumnByName(title) for title in (NAME, TRUST, WHY)]
    if None in columns or table.GetNumberOfRows() == 0:
        return []
    names, trust, why = columns
    figures = [slicer.util.arrayFromTableColumn(table, title) for title in FIGURES]
    values = np.column_stack(figures)
    now = slicer.util.arrayFromMarkupsControlPoints(node).reshape(1, -1, 3)
    kept = (np.abs(values[:, None, 2:5] - now) < CLOSE_MM).all(axis=2).any(axis=1)
    return [
        Found(
            names.GetValue(i),
            *row[:2],
            row[2:5],
            row[5:8],
            trust.GetValue(i),
            tuple(why.GetValue(i).split()),
        )
        for i, row in enumerate(values)
        if kept[i]
    ]


def in_world(parameters: CrossKEYParameters, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Where a point was given and where it was found, RAS mm of the world.

    Raises:
        Problem: an image is gone, or a transform above it is not linear.
    """
    if parameters.foundFrom is None or parameters.foundTo is None:
        raise Problem(_("An image of these landmarks is no longer in the scene."))
    pairs = ((parameters.foundFrom, found.given), (parameters.foundTo, found.place))
    given, place = (
        chain.moved(chain.between(image.GetParentTransformNode(), None), point)
        for image, point in pairs
    )
    return given, place


def place(parameters: CrossKEYParameters) -> None:
    """Points and similarity map to where their image lies now."""
    for node in (parameters.foundLandmarks, parameters.similarityMap):
        if node is not None and parameters.foundTo is not None:
            hang_with(node, parameters.foundTo)


def _fill_points(parameters: CrossKEYParameters, found: list[Found]) -> None:
    """Selected points have a colour of their own: here those that may be trusted."""
    kind = "vtkMRMLMarkupsFiducialNode"
    node = node_of(parameters, "foundLandmarks", kind, _("Found landmarks"))
    node.CreateDefaultDisplayNodes()
    node.SetLocked(False)
    places = np.array([one.place for one in found])
    slicer.util.updateMarkupsControlPointsFromArray(node, places)
    for index, one in enumerate(found):
        note = _("score {score:.2f}, spread {spread:.1f} mm")
        node.SetNthControlPointLabel(index, one.name)
        node.SetNthControlPointDescription(
            index, note.format(score=one.score, spread=one.spread_mm)
        )
        node.SetNthControlPointSelected(index, one.trust == GOOD)
    node.SetLocked(True)
    display = node.GetDisplayNode()
    display.SetSelectedColor(*GOOD_COLOUR)
    display.SetColor(*OTHER_COLOUR)
    display.SetPropertiesLabelVisibility(False)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(GLYPH_MM)


def _fill_table(parameters: CrossKEYParameters, found: list[Found]) -> None:
    node = node_of(parameters, "landmarkTable", "vtkMRMLTableNode", _("CrossKEY landmarks"))
    table = vtk.vtkTable()
    for title, texts in (
        (NAME, [one.name for one in found]),
        (TRUST, [one.trust for one in found]),
        (WHY, [" ".join(one.why) for one in found]),
    ):
        column = vtk.vtkStringArray()
        column.SetName(title)
        for text in texts:
            column.InsertNextValue(text)
        table.AddColumn(column)
    values = np.array([[one.score, one.spread_mm, *one.place, *one.given] for one in found])
    for title, column in zip(FIGURES, values.T, strict=True):
        array = numpy_to_vtk(np.ascontiguousarray(column), deep=True)
        array.SetName(title)
        table.AddColumn(array)
    node.SetAndObserveTable(table)
