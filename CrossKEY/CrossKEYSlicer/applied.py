"""The last accepted registration in the scene: put there, shown before and after, taken back.

It is remembered together with its nodes, so that whatever is chosen in the panel afterwards, no
other transform is touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from . import chain, result_nodes
from .chain import Correction
from .parameters import CrossKEYParameters
from .problem import Problem

CLOSE_MM = 1e-6  # between a matrix and what a file or a copy of it holds


def take(
    parameters: CrossKEYParameters,
    mri: vtkMRMLScalarVolumeNode,
    ius: vtkMRMLScalarVolumeNode,
    result: dict[str, Any],
) -> None:
    """The worker's result into the scene; a refused one changes nothing but the verdict."""
    matches = result.pop("matches")
    if result["accepted"]:
        apply(parameters, mri, ius, result["matrix_ras"], matches)
    parameters.outcome = json.dumps(result)


def outcome(parameters: CrossKEYParameters) -> dict[str, Any]:
    """The last registration's report; empty before the first, and when what was accepted has been
    taken out of the scene."""
    report = json.loads(parameters.outcome) if parameters.outcome else {}
    gone = report.get("accepted") and in_place(parameters) is None
    return {} if gone else report


def apply(
    parameters: CrossKEYParameters,
    mri: vtkMRMLScalarVolumeNode,
    ius: vtkMRMLScalarVolumeNode,
    T_fixed_moving: Sequence[Sequence[float]],
    matches: dict[str, list],
) -> None:
    """Move the ultrasound onto the MRI and show by which matches."""
    parameters.mri, parameters.ius = mri, ius
    if chain.serves_another(parameters.transform, ius):
        parameters.transform = None
    name = _("{ius} to {mri}").format(ius=ius.GetName(), mri=mri.GetName())
    kind = "vtkMRMLLinearTransformNode"
    transform = result_nodes.node_of(parameters, "transform", kind, name)
    parameters.correction = chain.apply(mri, ius, transform, np.asarray(T_fixed_moving)).text()
    parameters.registeredMri, parameters.registeredIus = mri, ius
    parameters.registeredTransform = transform
    parameters.after = True
    result_nodes.show_matches(parameters, matches)


def in_place(parameters: CrossKEYParameters) -> Correction | None:
    """What was changed; None when nothing was, or somebody has taken it out of the scene."""
    transform, ius = parameters.registeredTransform, parameters.registeredIus
    if transform is None or ius is None or transform not in chain.chain_of(ius):
        return None
    return Correction.of(parameters.correction)


def show(parameters: CrossKEYParameters, after: bool) -> None:
    """The scene after registration, or as it was before."""
    correction = in_place(parameters)
    if correction is not None:
        matrix = correction.result if after else correction.former
        chain.set_matrix(parameters.registeredTransform, matrix)
        result_nodes.place_matches(parameters)


def undo(parameters: CrossKEYParameters) -> None:
    """Back to the transform before the registration, for good.

    Raises:
        Problem: there is none.
    """
    correction = in_place(parameters)
    if correction is None:
        raise Problem(_("There is no registration to undo."))
    chain.set_matrix(parameters.registeredTransform, correction.former)
    if not correction.attached:
        chain.remove(parameters.registeredTransform)
    parameters.correction = parameters.outcome = ""
    result_nodes.place_matches(parameters)


def notice(parameters: CrossKEYParameters) -> None:
    """Tell before from after by the matrix itself, which the scene's own undo may have changed."""
    correction = in_place(parameters)
    if correction is None:
        return
    matrix = chain.matrix_of(parameters.registeredTransform)
    for after, known in ((False, correction.former), (True, correction.result)):
        if np.allclose(matrix, known, atol=CLOSE_MM) and parameters.after != after:
            parameters.after = after
            break
