"""Whether the last verdict still speaks of what is shown: same images, same place.

A verdict belongs to one ultrasound on one MRI, as both were when they were registered. Shown beside
another image, or beside one that has changed or was moved since, it would be a wrong promise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import chain, volumes
from .chain import CLOSE_MM, Correction


def judged(mri: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode) -> dict[str, str]:
    """What a verdict belongs to: names, fingerprints and the time, kept with the report."""
    return {
        "mri": mri.GetName(),
        "ius": ius.GetName(),
        "mri_image": volumes.fingerprint(mri),
        "ius_image": volumes.fingerprint(ius),
        "time": datetime.now().strftime("%Y-%m-%d %H:%M"),
    }


def outdated(parameters: CrossKEYParameters, report: dict[str, Any]) -> str:
    """Why the report does not hold for what is shown now, in words; empty where it does.

    Args:
        report: of the last registration, with `judged` under that name.
    """
    about = report.get("judged")
    if not about:
        return ""
    mri, ius = parameters.judgedMri, parameters.judgedIus
    if mri is None or ius is None or mri is not parameters.mri or ius is not parameters.ius:
        return _("It is for another image: {ius} on {mri}.").format(**about)
    for node, key in ((mri, "mri_image"), (ius, "ius_image")):
        if node.GetImageData() is None or volumes.fingerprint(node) != about[key]:
            return _("{name} has changed since.").format(name=node.GetName())
    if was_applied(report) and _was_moved(parameters):
        return _("The ultrasound or the MRI was moved since.")
    return ""


def was_applied(report: dict[str, Any]) -> bool:
    """By its verdict, or by a person."""
    return bool(report.get("accepted") or report.get("applied_by_hand"))


def _was_moved(parameters: CrossKEYParameters) -> bool:
    """Whether the images lie otherwise than the registration laid them, or than before it."""
    correction = Correction.of(parameters.correction)
    if correction is None or parameters.registeredTransform is None:
        return False
    matrix = chain.matrix_of(parameters.registeredTransform)
    if np.allclose(matrix, correction.former, atol=CLOSE_MM) and not parameters.after:
        return False
    if not np.allclose(matrix, correction.result, atol=CLOSE_MM):
        return True
    try:
        now = chain.present_alignment(parameters.registeredMri, parameters.registeredIus)
    except Problem:  # a bent transform
        return True
    return not np.allclose(now, correction.alignment, atol=CLOSE_MM)
