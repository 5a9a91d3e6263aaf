"""Masks that a person chose: label maps and segmentations as files for the worker.

The worker takes a mask in the own coordinates of its image. The node of the mask may hang under
other transforms than the image, so the file says where the mask lies as seen from the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import chain, volumes


def check(mask: Any) -> None:
    """
    Raises:
        Problem: the mask marks nothing.
    """
    if mask is None:
        return
    if mask.IsA("vtkMRMLSegmentationNode"):
        marks = mask.GetSegmentation().GetNumberOfSegments() > 0
    else:
        image = mask.GetImageData()
        marks = image is not None and image.GetScalarRange()[1] > 0
    if not marks:
        raise Problem(_nothing(mask))


def write(mask: Any, image: slicer.vtkMRMLScalarVolumeNode, path: Path) -> str | None:
    """Write a mask in the own coordinates of its image; all segments of a segmentation count.

    Args:
        mask: label map or segmentation node; None without.

    Returns:
        The file; None without a mask.

    Raises:
        Problem: the mask marks nothing, a transform above it is not linear, or the file cannot be
            written.
    """
    if mask is None:
        return None
    check(mask)
    labels = _merged(mask) if mask.IsA("vtkMRMLSegmentationNode") else _shared(mask)
    to_image = chain.between(mask.GetParentTransformNode(), image.GetParentTransformNode())
    matrix = vtk.vtkMatrix4x4()
    labels.GetIJKToRASMatrix(matrix)
    lying = to_image @ slicer.util.arrayFromVTKMatrix(matrix)
    labels.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(lying))
    return volumes.write_volume(labels, path)


def names(parameters: CrossKEYParameters) -> dict[str, str]:
    """Of the chosen masks, for the report; "" without."""
    chosen = {"mri_mask": parameters.mriMask, "ius_mask": parameters.iusMask}
    return {key: mask.GetName() if mask is not None else "" for key, mask in chosen.items()}


def _shared(mask: slicer.vtkMRMLLabelMapVolumeNode) -> slicer.vtkMRMLLabelMapVolumeNode:
    """A node outside the scene with the same voxels, whose geometry may be changed."""
    matrix = vtk.vtkMatrix4x4()
    mask.GetIJKToRASMatrix(matrix)
    labels = slicer.vtkMRMLLabelMapVolumeNode()
    labels.SetAndObserveImageData(mask.GetImageData())
    labels.SetIJKToRASMatrix(matrix)
    return labels


def _merged(mask: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLLabelMapVolumeNode:
    """All segments in one label map, from a copy: segments that were drawn as surfaces have to be
    converted, which must not change the person's own.

    Raises:
        Problem: they cannot be converted, or mark nothing.
    """
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetAndObserveSegmentation(slicer.vtkSegmentation())
    copy.GetSegmentation().DeepCopy(mask.GetSegmentation())
    merged = slicer.vtkOrientedImageData()
    extent = slicer.vtkSegmentation.EXTENT_UNION_OF_SEGMENTS
    made = (
        copy.CreateBinaryLabelmapRepresentation()
        and copy.GenerateMergedLabelmapForAllSegments(merged, extent)
        and min(merged.GetDimensions()) > 0
    )
    labels = slicer.vtkMRMLLabelMapVolumeNode()
    to_node = slicer.vtkSlicerSegmentationsModuleLogic.CreateLabelmapVolumeFromOrientedImageData
    if not made or not to_node(merged, labels) or labels.GetImageData().GetScalarRange()[1] <= 0:
        raise Problem(_nothing(mask))
    return labels


def _nothing(mask: Any) -> str:
    return _("The mask '{name}' marks nothing; select another one or none.").format(
        name=mask.GetName()
    )
