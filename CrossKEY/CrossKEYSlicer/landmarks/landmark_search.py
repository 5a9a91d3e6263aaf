"""What the worker is asked about landmarks: which points, of which image, in which other one.

Points go to the worker and come back in the own coordinates of the image that they belong to, so
that transforms above the images, also such as change meanwhile, play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..problem import Problem
from ..scene import chain, volumes


@dataclass(frozen=True)
class Question:
    """
    Attributes:
        from_volume: image that the points were placed in.
        to_volume: image to find them in.
        node: the points as placed.
        labels: N names.
        points: ``[N, 3]`` RAS mm in the own coordinates of ``from_volume``.
    """

    from_volume: vtkMRMLScalarVolumeNode
    to_volume: vtkMRMLScalarVolumeNode
    node: vtkMRMLMarkupsFiducialNode
    labels: list[str]
    points: np.ndarray


def check_images(parameters: CrossKEYParameters) -> None:
    """
    Raises:
        Problem: an image is missing or empty, or both are the same, or no list is chosen.
    """
    images = (parameters.landmarksFrom, parameters.landmarksTo)
    volumes.check_volume(images[0], _("volume in which the points are placed"))
    volumes.check_volume(images[1], _("volume in which to find the points"))
    if images[0] is images[1]:
        raise Problem(_("Both volumes are the same; select two different ones."))
    if parameters.landmarkPoints is None:
        raise Problem(_("Select a list of points, or press Place to start one."))


def question(parameters: CrossKEYParameters) -> Question:
    """The points as they lie now.

    Raises:
        Problem: see `check_images`; or there are no points, or one lies outside of its image.
    """
    check_images(parameters)
    image, node = parameters.landmarksFrom, parameters.landmarkPoints
    defined = slicer.vtkMRMLMarkupsNode.PositionDefined  # others are still at the mouse pointer
    count = node.GetNumberOfControlPoints()
    placed = [i for i in range(count) if node.GetNthControlPointPositionStatus(i) == defined]
    if not placed:
        raise Problem(_("'{name}' holds no points; place some first.").format(name=node.GetName()))
    labels = [node.GetNthControlPointLabel(i) or str(i + 1) for i in placed]
    world = slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3)[placed]
    to_world, _also_linear = (
        chain.between(one.GetParentTransformNode(), None) for one in (image, parameters.landmarksTo)
    )
    points = chain.moved(np.linalg.inv(to_world), world)
    for label in np.array(labels)[volumes.outside(image, points)][:1]:
        text = _("The point '{label}' lies outside '{name}'; move or delete it.")
        raise Problem(text.format(label=label, name=image.GetName()))
    return Question(image, parameters.landmarksTo, node, labels, points)


def request(
    parameters: CrossKEYParameters,
    images: tuple[vtkMRMLScalarVolumeNode, vtkMRMLScalarVolumeNode],
    folder: Path,
    points: list[list[float]],
    similarity: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """For the worker, see `CrossKEYLib.worker`.

    Args:
        images: the one with the points and the other one, written into the folder.
        points: N of them, see `Question`.
        similarity: the map that is wanted, if any.

    Raises:
        Problem: a file cannot be written.
    """
    return {
        "do": "landmarks",
        "from_image": volumes.write_volume(images[0], folder / "from.nrrd"),
        "to_image": volumes.write_volume(images[1], folder / "to.nrrd"),
        "points": points,
        "similarity": similarity,
        "device": parameters.device,
    }


def place_points(parameters: CrossKEYParameters) -> None:
    """Let the person click points into the views, into the chosen list or a new one."""
    if parameters.landmarkPoints is None:
        name = slicer.mrmlScene.GenerateUniqueName(_("Landmarks"))
        kind = "vtkMRMLMarkupsFiducialNode"
        parameters.landmarkPoints = slicer.mrmlScene.AddNewNodeByClass(kind, name)
        parameters.landmarkPoints.CreateDefaultDisplayNodes()
    markups = slicer.app.applicationLogic().GetModuleLogic("Markups")
    markups.SetActiveList(parameters.landmarkPoints)
    markups.StartPlaceMode(True)
