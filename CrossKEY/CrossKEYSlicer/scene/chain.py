"""Where the correction stands among the transforms of the ultrasound, and what it must hold.

The ultrasound may hang under a tracker's transforms, and share some of them with the MRI. The
correction goes above those that are the ultrasound's own and below those that both share: the
tracker's chain stays as it is, and the MRI does not move.

    ultrasound -> own transforms -> correction -> shared transforms -> world
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLLinearTransformNode, vtkMRMLTransformableNode, vtkMRMLTransformNode
from slicer.i18n import tr as _

from ..problem import Problem

Matrix = np.ndarray
CLOSE_MM = 1e-6  # between a matrix and what a file or a copy of it holds


@dataclass(frozen=True)
class Correction:
    """What one registration has changed.

    Attributes:
        former: the matrix before, identity when the correction was not in the chain.
        result: the matrix after.
        attached: whether the correction was in the chain before.
        alignment: ``T_fixed_moving`` of the images that it brings about.
        by_hand: the matrix that a person has set since, in place of the result; None without.
    """

    former: list[list[float]]
    result: list[list[float]]
    attached: bool
    alignment: list[list[float]]
    by_hand: list[list[float]] | None = None

    @property
    def after(self) -> list[list[float]]:
        """The matrix of the state after registration: a person's own where there is one."""
        return self.by_hand or self.result

    def text(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def of(cls, text: str) -> Correction | None:
        return cls(**json.loads(text)) if text else None


def chain_of(node: vtkMRMLTransformableNode) -> list[vtkMRMLTransformNode]:
    """The transforms above a node, nearest first."""
    found = []
    parent = node.GetParentTransformNode()
    while parent is not None:
        found.append(parent)
        parent = parent.GetParentTransformNode()
    return found


def between(inner: vtkMRMLTransformNode | None, outer: vtkMRMLTransformNode | None) -> Matrix:
    """From the coordinates inside ``inner`` to those inside ``outer``; None is the world.

    Raises:
        Problem: a transform on the way is not linear.
    """
    matrix = vtk.vtkMatrix4x4()
    if not slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(inner, outer, matrix):
        raise Problem(
            _("A transform above one of the images is not linear; harden it, then try again.")
        )
    return slicer.util.arrayFromVTKMatrix(matrix)


def present_alignment(mri: vtkMRMLTransformableNode, ius: vtkMRMLTransformableNode) -> Matrix:
    """``T_fixed_moving`` as the scene has it, between the nodes' own coordinates."""
    return between(ius.GetParentTransformNode(), mri.GetParentTransformNode())


def check_place(
    mri: vtkMRMLTransformableNode,
    ius: vtkMRMLTransformableNode,
    correction: vtkMRMLLinearTransformNode,
) -> None:
    """
    Raises:
        Problem: the correction would move the MRI as well, or the scene has other than linear
            transforms.
    """
    if correction in chain_of(mri):
        raise Problem(
            _("The output transform '{name}' moves the MRI; select or create another.").format(
                name=correction.GetName()
            )
        )
    present_alignment(mri, ius)


def apply(
    mri: vtkMRMLTransformableNode,
    ius: vtkMRMLTransformableNode,
    correction: vtkMRMLLinearTransformNode,
    T_fixed_moving: Matrix,
) -> Correction:
    """Put the correction in its place so that the ultrasound lies on the MRI in the world.

    Args:
        T_fixed_moving: from the ultrasound's own coordinates to the MRI's own.
    """
    check_place(mri, ius, correction)
    attached = correction in chain_of(ius)
    former = matrix_of(correction) if attached else np.eye(4)
    if not attached:
        _insert(mri, ius, correction)
    above = correction.GetParentTransformNode()
    to_below = between(ius.GetParentTransformNode(), correction)  # the ultrasound's own transforms
    mri_to_above = between(mri.GetParentTransformNode(), above)
    result = mri_to_above @ T_fixed_moving @ np.linalg.inv(to_below)
    set_matrix(correction, result)
    alignment = np.asarray(T_fixed_moving, float)
    return Correction(former.tolist(), result.tolist(), attached, alignment.tolist())


def alignment_with(
    mri: vtkMRMLTransformableNode,
    ius: vtkMRMLTransformableNode,
    correction: vtkMRMLLinearTransformNode,
    matrix: Matrix,
) -> Matrix:
    """``T_fixed_moving`` as it would be if the correction held this matrix.

    Raises:
        Problem: a transform on the way is not linear.
    """
    to_below = between(ius.GetParentTransformNode(), correction)
    mri_to_above = between(mri.GetParentTransformNode(), correction.GetParentTransformNode())
    return np.linalg.inv(mri_to_above) @ matrix @ to_below


def _insert(
    mri: vtkMRMLTransformableNode,
    ius: vtkMRMLTransformableNode,
    correction: vtkMRMLLinearTransformNode,
) -> None:
    shared = chain_of(mri)
    child, parent = ius, ius.GetParentTransformNode()
    while parent is not None and parent not in shared:
        child, parent = parent, parent.GetParentTransformNode()
    correction.SetAndObserveTransformNodeID(parent.GetID() if parent else None)
    child.SetAndObserveTransformNodeID(correction.GetID())


def serves_another(
    correction: vtkMRMLLinearTransformNode | None, ius: vtkMRMLTransformableNode
) -> bool:
    """Whether a transform holds the correction of another ultrasound, which must keep it."""
    if correction is None or correction in chain_of(ius):
        return False
    images = slicer.util.getNodesByClass("vtkMRMLVolumeNode", correction.GetScene())
    return any(correction in chain_of(image) for image in images)


def remove(correction: vtkMRMLLinearTransformNode) -> None:
    """Take the correction out of every chain; what hung below hangs above it then."""
    scene, parent = correction.GetScene(), correction.GetParentTransformNode()
    for node in list(slicer.util.getNodesByClass("vtkMRMLTransformableNode", scene)):
        if node.GetParentTransformNode() is correction:
            node.SetAndObserveTransformNodeID(parent.GetID() if parent else None)


def moved(matrix: Matrix, points: np.ndarray) -> np.ndarray:
    """Points ``[..., 3]`` under a 4x4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def matrix_of(node: vtkMRMLLinearTransformNode) -> Matrix:
    matrix = vtk.vtkMatrix4x4()
    node.GetMatrixTransformToParent(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def set_matrix(node: vtkMRMLLinearTransformNode, matrix: Matrix | list[list[float]]) -> None:
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.asarray(matrix, float)))
