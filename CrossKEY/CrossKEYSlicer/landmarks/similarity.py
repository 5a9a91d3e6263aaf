"""How similar every place of an image is to one landmark: a volume, laid over the slice views."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..scene import views, volumes
from ..scene.result_nodes import group, node_of
from . import landmark_results
from .landmark_results import Found

COLOURS = "vtkMRMLColorTableNodeIron"  # black over red and yellow to white
# Of the cosine. The same for every point, so that a faint map tells of an uncertain one.
FAINTEST, BRIGHTEST = 0.4, 0.9
ABOVE_ALL = 2.0
OPACITY = 0.6
POINT = "CrossKEY.point"  # attribute of the map: what it is of


def show(parameters: CrossKEYParameters, found: Found, file: Path) -> None:
    """Fill the one map of the scene from a file and lay it over the image."""
    node = node_of(parameters, "similarityMap", "vtkMRMLScalarVolumeNode", _("Similarity"))
    volumes.read_volume(node, file)
    node.SetName(_("Similarity to {name}").format(name=found.name))
    node.SetAttribute(POINT, _key(parameters, found))
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(COLOURS)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(FAINTEST, BRIGHTEST)
    display.SetAutoThreshold(False)
    display.SetThreshold(FAINTEST, ABOVE_ALL)
    display.SetApplyThreshold(True)
    landmark_results.place(parameters)
    group(node)
    overlay(parameters)


def outdate(parameters: CrossKEYParameters) -> None:
    """Landmarks are found anew, perhaps since an image has changed: a map is, too."""
    if parameters.similarityMap is not None:
        parameters.similarityMap.SetAttribute(POINT, None)


def is_of(parameters: CrossKEYParameters, found: Found) -> bool:
    """Whether the map in the scene shows this point."""
    node = parameters.similarityMap
    return node is not None and node.GetAttribute(POINT) == _key(parameters, found)


def overlay(parameters: CrossKEYParameters) -> None:
    """In front of the image in the views that show it."""
    for composite in views.bring(parameters.foundTo):
        composite.SetBackgroundVolumeID(parameters.foundTo.GetID())
        composite.SetForegroundVolumeID(parameters.similarityMap.GetID())
        composite.SetForegroundOpacity(OPACITY)


def hide(parameters: CrossKEYParameters) -> None:
    """Out of the views; the volume stays in the scene."""
    if parameters.similarityMap is None:
        return
    for composite in views.composites():
        if composite.GetForegroundVolumeID() == parameters.similarityMap.GetID():
            composite.SetForegroundVolumeID(None)


def _key(parameters: CrossKEYParameters, found: Found) -> str:
    images = (parameters.foundFrom.GetID(), parameters.foundTo.GetID())
    return " ".join([*images, *(f"{x:.3f}" for x in found.given)])
