"""Target registration error from landmarks that a person has placed on MRI and ultrasound."""

from __future__ import annotations

import numpy as np
import slicer
from slicer import vtkMRMLMarkupsFiducialNode
from slicer.i18n import tr as _

from ..problem import Problem
from ..scene import chain
from ..scene.chain import Correction


def paired_points(
    mri: vtkMRMLMarkupsFiducialNode | None, ius: vtkMRMLMarkupsFiducialNode | None
) -> tuple[np.ndarray, np.ndarray]:
    """World positions ``[N, 3]`` as shown now, paired by label where the labels allow, else by
    order.

    Raises:
        Problem: a node is missing or empty, or the numbers differ.
    """
    if mri is None or ius is None:
        raise Problem(_("Select the landmarks of the MRI and of the ultrasound."))
    labels, points = [], []
    for node in (mri, ius):
        count = node.GetNumberOfControlPoints()
        labels.append([node.GetNthControlPointLabel(i) for i in range(count)])
        points.append(slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3))
    if not len(points[0]) or len(points[0]) != len(points[1]):
        raise Problem(
            _("{mri} landmarks on the MRI, {ius} on the ultrasound: they must be pairs.").format(
                mri=len(points[0]), ius=len(points[1])
            )
        )
    unique = len(set(labels[0])) == len(labels[0])
    if unique and set(labels[0]) == set(labels[1]):
        points[1] = points[1][[labels[1].index(label) for label in labels[0]]]
    return points[0], points[1]


def errors(
    mri: vtkMRMLMarkupsFiducialNode | None,
    ius: vtkMRMLMarkupsFiducialNode | None,
    transform: slicer.vtkMRMLLinearTransformNode | None,
    correction: Correction | None,
) -> dict[str, float]:
    """Mean distance in mm before and after, whichever of the two is shown at present.

    Ultrasound landmarks that hang under the correction move with the ultrasound; others were
    placed on the ultrasound as it lay before.

    Raises:
        Problem: see `paired_points`; or nothing was registered yet.
    """
    fixed, moving = paired_points(mri, ius)
    if transform is None or correction is None:
        raise Problem(_("Register first; there is nothing to measure yet."))
    shown = chain.matrix_of(transform) if transform in chain.chain_of(ius) else correction.former
    to_world = chain.between(transform.GetParentTransformNode(), None)
    distances = {}
    for name, matrix in (("before", correction.former), ("after", correction.result)):
        motion = to_world @ np.asarray(matrix) @ np.linalg.inv(shown) @ np.linalg.inv(to_world)
        distance = np.linalg.norm(chain.moved(motion, moving) - fixed, axis=1)
        distances[name] = float(distance.mean())
    return {**distances, "count": len(fixed)}
