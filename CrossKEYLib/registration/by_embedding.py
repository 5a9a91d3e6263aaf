"""Registration of two images of one head by the universal embedding, with a verdict.

`pipeline` is made for ultrasound, and its trust was fitted on ultrasound. This module registers any
two images: MRI of two contrasts, or MRI and CT. The verdict asks two questions. Inverse
consistency: the transform from the moving image to the fixed one must agree with the inverse of the
backward one. Structure: small patches of both images must agree better at the result than 8 mm
beside, because both directions may agree on one wrong position.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import Transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..landmarks.inverse_consistency import InverseConsistency, register_inverse_consistent
from ..landmarks.structure import CLEAR_MARGIN, structure_margin
from ..models.universal import UniversalModel
from ..runtime.version import __version__
from ..trust.confidence import DOUBTFUL, REFUSED

# Limits of other uses of the same search: pairs that training keeps (docs/rounds.md), and
# atlases whose labels are carried over (docs/landmarks.md).
AGREED_MM = 4.0
# In a phantom turned upside down, both directions agreed on a wrong position.
UNTESTED = "How far this method can be trusted was not tested on patients; look at the result."


@dataclass(frozen=True, eq=False)
class EmbeddingRegistration:
    """Outcome of one registration; always false, because a person has to check it.

    Attributes:
        matrix: ``T_fixed_moving`` (4x4, RAS mm); None if nothing was found. A refused registration
            may hold one, for inspection only.
        verdict: "doubtful", a person has to check it, or "refused"; never accepted.
        reasons: sentences.
        inverse_consistency_mm: mean distance between the forward and the inverted backward
            transform over what the moving image shows; None when one of them was not found.
        structure_margin: see `landmarks.structure`; None when nothing was found.
        n_matches, n_inliers: of the forward registration's last pass.
        inlier_rms_mm: their residual; None if nothing was found.
        seconds: of the whole registration.
        device: on which it was computed.
        model: name of the model.
    """

    matrix: Matrix | None
    verdict: str
    reasons: list[str]
    inverse_consistency_mm: float | None
    structure_margin: float | None
    n_matches: int
    n_inliers: int
    inlier_rms_mm: float | None
    seconds: float
    device: str
    model: str

    def __bool__(self) -> bool:
        return False

    def report(self) -> dict[str, Any]:
        """Plain values, under the keys of `result.Report` where they mean the same."""
        return {
            "method": "embedding",
            "verdict": self.verdict,
            "accepted": bool(self),
            "reasons": self.reasons,
            "matrix_ras": None if self.matrix is None else self.matrix.tolist(),
            "inverse_consistency_mm": self.inverse_consistency_mm,
            "structure_margin": self.structure_margin,
            "n_matches": self.n_matches,
            "n_inliers": self.n_inliers,
            "inlier_rms_mm": self.inlier_rms_mm,
            "seconds": {"total": round(self.seconds, 3)},
            "device": self.device,
            "model": self.model,
            "version": __version__,
        }


def register_by_embedding(
    fixed: Volume,
    moving: Volume,
    model: UniversalModel | None = None,
    *,
    transform: Transform = "rigid",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> EmbeddingRegistration:
    """Register two images of one head and assess the result; no start is needed.

    Args:
        fixed, moving: MRI of any contrast, or CT in Hounsfield units; of any field of view.
        model: universal embedding; the bundled one when missing.
        transform: what to estimate.
        seed: of everything random.
        progress: told the name of each stage as it begins.

    Raises:
        InputError: an image is constant.
    """
    begin = time.perf_counter()
    model = model or UniversalModel.load()
    if progress is not None:
        progress("embedding")
    found = register_inverse_consistent(fixed, moving, model, transform_kind=transform, seed=seed)
    margin = None if found.matrix is None else structure_margin(fixed, moving, found.matrix)
    verdict, reasons = judged(found, margin)
    return EmbeddingRegistration(
        matrix=found.matrix,
        verdict=verdict,
        reasons=reasons,
        inverse_consistency_mm=found.inverse_consistency_mm,
        structure_margin=margin,
        n_matches=len(found.forward.inliers),
        n_inliers=found.forward.n_inliers,
        inlier_rms_mm=found.forward.rms_mm,
        seconds=time.perf_counter() - begin,
        device=str(moving.device),
        model=model.name,
    )


def judged(found: InverseConsistency, structure_margin: float | None) -> tuple[str, list[str]]:
    """Verdict and its reasons in words."""
    error = found.inverse_consistency_mm
    if found.matrix is None or structure_margin is None:
        return REFUSED, ["No position was found in which the two images agree."]
    reasons: list[str] = []
    if error is None:
        reasons.append("The registration in the other direction found no position.")
    elif error > AGREED_MM:
        apart = f"The registrations in both directions lie {error:.1f} mm apart"
        reasons.append(f"{apart}, more than {AGREED_MM:.0f} mm.")
    if structure_margin < CLEAR_MARGIN:
        reasons.append("The images show the same structure no better there than 8 mm beside.")
    return (REFUSED, reasons) if reasons else (DOUBTFUL, [UNTESTED])
