"""The last accepted registration in the scene: put there, shown before and after, taken back.

It is remembered together with its nodes, so that whatever is chosen in the panel afterwards, no
other transform is touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import chain, preview, result_nodes, standing
from .chain import CLOSE_MM, Correction

DOUBTFUL = "doubtful"


def take(
    parameters: CrossKEYParameters,
    mri: vtkMRMLScalarVolumeNode,
    ius: vtkMRMLScalarVolumeNode,
    result: dict[str, Any],
    judged: dict[str, str],
) -> None:
    """The worker's result into the scene. A refused one moves nothing, and what an earlier one
    showed as its matches is taken away: it does not belong to the verdict. A doubtful one is shown
    as a preview.

    Args:
        judged: `standing.judged` of the images as they were sent to the worker, which may have
            changed since.
    """
    matches = result.pop("matches")
    preview.remove(parameters)
    parameters.lastSeconds = float(result["seconds"]["total"])
    parameters.judgedMri, parameters.judgedIus = mri, ius
    if result["accepted"]:
        apply(parameters, mri, ius, result["matrix_ras"], matches)
    else:
        result_nodes.clear_matches(parameters)
    if result.get("verdict") == DOUBTFUL:
        preview.show(parameters, mri, ius, result, matches)
    parameters.outcome = json.dumps({**result, "judged": judged})


def apply_preview(parameters: CrossKEYParameters) -> None:
    """Move the ultrasound as the preview shows it, which a person has decided.

    Raises:
        Problem: there is no preview, or the images have changed since.
    """
    waiting, report = preview.pending(parameters), outcome(parameters)
    if not waiting:
        raise Problem(_("There is no preview to apply."))
    if report.get("outdated"):
        raise Problem(report["outdated"])
    mri, ius = parameters.judgedMri, parameters.judgedIus
    preview.remove(parameters)
    apply(parameters, mri, ius, waiting["matrix"], waiting["matches"])
    kept = json.loads(parameters.outcome)
    parameters.outcome = json.dumps({**kept, "applied_by_hand": True})


def outcome(parameters: CrossKEYParameters) -> dict[str, Any]:
    """The last registration's report; empty before the first, and when what was accepted has been
    taken out of the scene. ``outdated`` says why it does not hold for what is shown, if so."""
    report = json.loads(parameters.outcome) if parameters.outcome else {}
    gone = standing.was_applied(report) and in_place(parameters) is None
    if not report or gone:
        return {}
    return {**report, "outdated": standing.outdated(parameters, report)}


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


def can_undo(parameters: CrossKEYParameters) -> bool:
    """Whether the last registration has changed the scene; a refused one has not."""
    return standing.was_applied(outcome(parameters))


def moved_by_hand(parameters: CrossKEYParameters) -> bool:
    """Whether a person has changed the matrix that the registration set."""
    correction = in_place(parameters)
    return correction is not None and (correction.by_hand or _by_hand(parameters)) is not None


def _by_hand(parameters: CrossKEYParameters) -> list[list[float]] | None:
    """The present matrix where it is neither that before nor that after registration."""
    correction = in_place(parameters)
    if correction is None:
        return None
    matrix = chain.matrix_of(parameters.registeredTransform)
    known = (correction.former, correction.result, correction.after)
    if any(np.allclose(matrix, one, atol=CLOSE_MM) for one in known):
        return None
    return matrix.tolist()


def alignment(parameters: CrossKEYParameters) -> chain.Matrix:
    """``T_fixed_moving`` of the images after registration, also while the scene shows before.

    Raises:
        Problem: nothing is applied, or the scene has other than linear transforms.
    """
    correction = in_place(parameters)
    if correction is None:
        raise Problem(_("There is no registration in the scene."))
    by_hand = _by_hand(parameters)
    matrix = np.asarray(by_hand or correction.after)
    transform = parameters.registeredTransform
    mri, ius = parameters.registeredMri, parameters.registeredIus
    return chain.alignment_with(mri, ius, transform, matrix)


def show(parameters: CrossKEYParameters, after: bool) -> None:
    """The scene after registration, or as it was before. A matrix that a person has set since is
    the state after, and comes back as such."""
    correction = in_place(parameters)
    if correction is None:
        return
    by_hand = _by_hand(parameters)
    if by_hand is not None:
        correction = replace(correction, by_hand=by_hand)
        parameters.correction = correction.text()
    matrix = correction.after if after else correction.former
    chain.set_matrix(parameters.registeredTransform, matrix)
    result_nodes.place_matches(parameters)


def undo(parameters: CrossKEYParameters) -> None:
    """Back to the transform before the registration, for good; what a person has changed in it
    since goes too, which `undo_says` announces.

    Raises:
        Problem: there is none.
    """
    correction = in_place(parameters)
    if correction is None or not can_undo(parameters):
        raise Problem(_("There is no registration to undo."))
    chain.set_matrix(parameters.registeredTransform, correction.former)
    if not correction.attached:
        chain.remove(parameters.registeredTransform)
    parameters.correction = parameters.outcome = ""
    result_nodes.place_matches(parameters)


def undo_says(parameters: CrossKEYParameters) -> str:
    """What Undo would do now."""
    if not can_undo(parameters):
        return _("There is no registration to undo.")
    if moved_by_hand(parameters):
        return _(
            "Returns to the state before registration. Changes made by hand since then are lost, "
            "too."
        )
    return _("Returns to the state before registration.")


def notice(parameters: CrossKEYParameters) -> None:
    """Tell before from after by the matrix itself, which the scene's own undo may have changed."""
    correction = in_place(parameters)
    if correction is None:
        return
    matrix = chain.matrix_of(parameters.registeredTransform)
    for after, known in ((False, correction.former), (True, correction.after)):
        if np.allclose(matrix, known, atol=CLOSE_MM) and parameters.after != after:
            parameters.after = after
            break
