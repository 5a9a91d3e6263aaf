"""The ultrasound in every other cube alone: an edge that goes on across the border of a cube fits.

Drawn with a copy of the image. It moves with the ultrasound, and goes when the image changes.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from . import result_nodes

SIDE_MM = 10.0
SOURCE = "CrossKEY.checkerboardOf"  # attribute of the copy: node and state of the image


def of(parameters: CrossKEYParameters, image: vtkMRMLScalarVolumeNode) -> vtkMRMLScalarVolumeNode:
    """The copy of an image; made anew unless it is of the image's present state."""
    name = _("{image} (checkerboard)").format(image=image.GetName())
    volume = result_nodes.node_of(parameters, "checkerVolume", "vtkMRMLScalarVolumeNode", name)
    if volume.GetAttribute(SOURCE) != _state(image):
        _fill(volume, image)
    result_nodes.hang_with(volume, image)
    return volume


def follow(parameters: CrossKEYParameters, image: vtkMRMLScalarVolumeNode | None) -> bool:
    """Under the same transform as the image; False where the copy is not of this image as it is."""
    volume = parameters.checkerVolume
    if volume is None or image is None or volume.GetAttribute(SOURCE) != _state(image):
        return False
    result_nodes.hang_with(volume, image)
    return True


def remove(parameters: CrossKEYParameters) -> None:
    volume = parameters.checkerVolume
    if volume is not None:
        parameters.checkerVolume = None
        slicer.mrmlScene.RemoveNode(volume)


def _state(image: vtkMRMLScalarVolumeNode) -> str:
    data = image.GetImageData()
    return "" if data is None else f"{image.GetID()} {data.GetMTime()}"


def _fill(volume: vtkMRMLScalarVolumeNode, image: vtkMRMLScalarVolumeNode) -> None:
    array = slicer.util.arrayFromVolume(image)
    spacing = image.GetSpacing()[::-1]
    cubes = [
        (np.arange(n) * mm // SIDE_MM).astype(int)
        for n, mm in zip(array.shape, spacing, strict=True)
    ]
    odd = sum(np.ix_(*cubes)) % 2 == 1
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    volume.SetIJKToRASMatrix(matrix)
    least = image.GetImageData().GetScalarRange()[0]
    slicer.util.updateVolumeFromArray(volume, np.where(odd, array.dtype.type(least), array))
    volume.SetSaveWithScene(False)
    volume.SetAttribute(SOURCE, _state(image))
