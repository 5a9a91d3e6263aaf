"""MRI and ultrasound in two slice views beside each other, which show the same place."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from ..parameters import CrossKEYParameters

LAYOUT = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
ELSE = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
MRI_VIEW, IUS_VIEW = "Red", "Yellow"  # which that layout has, from left to right
MARGIN = 1.2  # of the ultrasound's largest extent


def switch(parameters: CrossKEYParameters) -> None:
    """To the layout of two views, or back to the one before."""
    layouts = slicer.util.getNodesByClass("vtkMRMLLayoutNode")
    wanted = LAYOUT if parameters.beside else parameters.layoutBefore
    for layout in layouts:
        present = layout.GetViewArrangement()
        if parameters.beside and present != LAYOUT:
            parameters.layoutBefore = present
        if parameters.beside or present == LAYOUT:  # a person may have chosen another since
            layout.SetViewArrangement(wanted or ELSE)
    for composite in _composites().values():
        composite.SetLinkedControl(parameters.beside)
        composite.SetHotLinkedControl(parameters.beside)


def fill(
    mri: slicer.vtkMRMLScalarVolumeNode, ius: slicer.vtkMRMLScalarVolumeNode, extent: np.ndarray
) -> None:
    """Each image into its view, in the same orientation and size.

    Args:
        extent: of the ultrasound in the world, ``[3]`` mm.
    """
    composites = _composites()
    for name, image in ((MRI_VIEW, mri), (IUS_VIEW, ius)):
        if name in composites:
            composites[name].SetBackgroundVolumeID(image.GetID())
            composites[name].SetForegroundVolumeID(None)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if node.GetLayoutName() in (MRI_VIEW, IUS_VIEW):
            node.SetOrientation("Axial")  # views that are linked follow each other in one alone
            _zoom(node, MARGIN * float(extent.max()))


def _composites() -> dict[str, Any]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    named = {node.GetLayoutName(): node for node in nodes}
    return {name: named[name] for name in (MRI_VIEW, IUS_VIEW) if name in named}


def _zoom(node: slicer.vtkMRMLSliceNode, side_mm: float) -> None:
    """So that the shorter side of the view shows this much."""
    pixels = np.array(node.GetDimensions()[:2], float)
    if pixels.min() > 0:
        width, height = side_mm * pixels / pixels.min()
        node.SetFieldOfView(width, height, node.GetFieldOfView()[2])
