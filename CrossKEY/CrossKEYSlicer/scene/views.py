"""Slice views: for the review MRI behind and ultrasound in front, both where the ultrasound is; for
landmarks each image at its point."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import slicer

from ..parameters import CrossKEYParameters
from . import beside, checkerboard

IUS_COLOURS = "vtkMRMLColorTableNodeYellow"  # black to yellow: echoes stay bright


def composites() -> Iterable[slicer.vtkMRMLSliceCompositeNode]:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def set_up(parameters: CrossKEYParameters) -> None:
    """Layers, colours, and the views on the middle of the ultrasound."""
    overlay(parameters, parameters.mri, parameters.ius)
    parameters.viewsSetUp = True


def show_beside(parameters: CrossKEYParameters, shown: bool) -> None:
    """MRI and ultrasound, or its preview, beside each other, or over each other again; at the place
    that the views show."""
    place = _place(beside.MRI_VIEW) if parameters.viewsSetUp else None
    parameters.beside = shown
    beside.switch(parameters)
    overlay(parameters, parameters.mri, _front(parameters), place)
    parameters.viewsSetUp = True


def show_checkerboard(parameters: CrossKEYParameters, shown: bool) -> None:
    """The ultrasound in every other cube alone, or all of it; at the place that the views show."""
    parameters.checkerboard = shown
    _layer(parameters, parameters.mri, _front(parameters))
    if not shown:
        checkerboard.remove(parameters)
    if not parameters.viewsSetUp:
        set_up(parameters)


def follow(parameters: CrossKEYParameters) -> None:
    """A checkerboard goes along with its image, and ends when that is another now."""
    if parameters.checkerboard and not checkerboard.follow(parameters, _front(parameters)):
        if parameters.mri is None or _front(parameters) is None:
            parameters.checkerboard = False
            checkerboard.remove(parameters)
        else:
            show_checkerboard(parameters, False)


def _front(parameters: CrossKEYParameters) -> slicer.vtkMRMLScalarVolumeNode:
    return parameters.previewVolume or parameters.ius


def overlay(
    parameters: CrossKEYParameters,
    mri: slicer.vtkMRMLScalarVolumeNode,
    ius: slicer.vtkMRMLScalarVolumeNode,
    place: np.ndarray | None = None,
) -> None:
    """An ultrasound, or its preview, in front of the MRI in all slice views, or each in its own.

    Args:
        place: that the views show then, world RAS mm; the middle of the ultrasound when missing.
    """
    _layer(parameters, mri, ius)
    bounds = np.zeros(6)
    ius.GetRASBounds(bounds)
    bounds = bounds.reshape(3, 2)
    if parameters.beside:
        beside.fill(mri, ius, np.ptp(bounds, axis=1))
    jump(bounds.mean(axis=1) if place is None else place)


def _layer(
    parameters: CrossKEYParameters,
    mri: slicer.vtkMRMLScalarVolumeNode,
    ius: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    low, high = ius.GetImageData().GetScalarRange()
    _dress(ius, low, high)
    front = ius
    if parameters.checkerboard:
        front = checkerboard.of(parameters, ius)
        _dress(front, low, high)
        shades = ius.GetDisplayNode()
        front.GetDisplayNode().SetAutoWindowLevel(False)
        front.GetDisplayNode().SetWindowLevel(shades.GetWindow(), shades.GetLevel())
    for composite in composites():
        composite.SetBackgroundVolumeID(mri.GetID())
        composite.SetForegroundVolumeID(front.GetID())
    fade(parameters, parameters.fade)


def _dress(volume: slicer.vtkMRMLScalarVolumeNode, low: float, high: float) -> None:
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(IUS_COLOURS)
    # Zero is outside the field of view and must not hide the MRI.
    display.SetThreshold(low + 0.01 * (high - low), high)
    display.SetAutoThreshold(False)
    display.SetApplyThreshold(True)


def _place(view: str) -> np.ndarray | None:
    """The middle of what a slice view shows, world RAS mm."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if node.GetLayoutName() == view:
            return slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3]
    return None


def fade(parameters: CrossKEYParameters, opacity: float) -> None:
    """Only where the ultrasound is in front: other views are none of this module's business."""
    images = (parameters.ius, parameters.previewVolume, parameters.checkerVolume)
    shown = [node.GetID() for node in images if node]
    for composite in composites():
        if composite.GetForegroundVolumeID() in shown:
            composite.SetForegroundOpacity(opacity)


def jump(point: np.ndarray) -> None:
    """All slice views to a point of the world, RAS mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, *map(float, point), slicer.vtkMRMLSliceNode.CenteredJumpSlice
    )


def bring(volume: slicer.vtkMRMLVolumeNode) -> list[slicer.vtkMRMLSliceCompositeNode]:
    """The views that show a volume; when there is none, all of them, which do from now on."""
    showing = [composite for composite in composites() if volume.GetID() in _layers(composite)]
    if showing:
        return showing
    for composite in composites():
        composite.SetBackgroundVolumeID(volume.GetID())
    return list(composites())


def jump_pair(
    given_in: slicer.vtkMRMLVolumeNode,
    given: np.ndarray,
    found_in: slicer.vtkMRMLVolumeNode,
    found: np.ndarray,
) -> None:
    """Views that show the second volume to where a point was found in it; those that show only the
    first, as of two beside each other, to where it was given. Points are world RAS mm."""
    there = {composite.GetLayoutName() for composite in bring(found_in)}
    here = {c.GetLayoutName() for c in composites() if given_in.GetID() in _layers(c)} - there
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        point = given if node.GetLayoutName() in here else found
        node.JumpSliceByCentering(*map(float, point))


def _layers(composite: slicer.vtkMRMLSliceCompositeNode) -> tuple[str | None, str | None]:
    return composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()
