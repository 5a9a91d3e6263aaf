"""A doubtful result: shown where it would lie, in an image of its own, until a person decides.

The ultrasound and its transforms are not touched; the preview shares its voxels.
"""

from __future__ import annotations

import json
from typing import Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from . import chain, result_nodes, views


def show(
    parameters: CrossKEYParameters,
    mri: vtkMRMLScalarVolumeNode,
    ius: vtkMRMLScalarVolumeNode,
    result: dict[str, Any],
    matches: dict[str, list],
) -> None:
    """Lay a copy of the ultrasound as the result says, and keep what Apply needs."""
    remove(parameters)
    best = result_nodes.shown_matches(matches)
    kept = {name: values.tolist() for name, values in best.items()}
    parameters.pending = json.dumps({"matrix": result["matrix_ras"], "matches": kept})
    kind = "vtkMRMLScalarVolumeNode"
    name = _("{ius} (preview, not applied)").format(ius=ius.GetName())
    volume = result_nodes.node_of(parameters, "previewVolume", kind, name)
    to_ras = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(to_ras)
    volume.SetIJKToRASMatrix(to_ras)
    volume.SetAndObserveImageData(ius.GetImageData())
    volume.SetSaveWithScene(False)
    kind = "vtkMRMLLinearTransformNode"
    transform = result_nodes.node_of(parameters, "previewTransform", kind, name)
    transform.SetSaveWithScene(False)
    chain.set_matrix(transform, result["matrix_ras"])
    result_nodes.hang_with(transform, mri)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    views.overlay(parameters, mri, volume)


def pending(parameters: CrossKEYParameters) -> dict[str, Any]:
    """``matrix`` and ``matches`` of the result that waits for a decision; empty without one, and
    when its images are gone."""
    there = parameters.judgedMri is not None and parameters.judgedIus is not None
    return json.loads(parameters.pending) if parameters.pending and there else {}


def remove(parameters: CrossKEYParameters) -> None:
    """Take the preview away."""
    for name in ("previewVolume", "previewTransform"):
        node = getattr(parameters, name)
        if node is not None:
            setattr(parameters, name, None)
            slicer.mrmlScene.RemoveNode(node)
    parameters.pending = ""
