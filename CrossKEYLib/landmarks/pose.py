"""How two embedded images lie to each other, and how far to trust that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..geometry.transform import Matrix, apply, from_parts, invert, nearest_rotation
from .fixed_point import COARSE, Survey
from .structure import CLEAR_MARGIN

CONSISTENT_MM = 8.0  # between the surveys in both directions, as far as one survey's pairs may err
AGREEING = 0.25  # share of a survey's pairs; at most 0.12 in wrong poses of heads
SCORE_LEAST = 0.60  # cosine, as for a single point: wrong pairs may well agree with each other


@dataclass(frozen=True, eq=False)
class Pose:
    """
    Attributes:
        matrix: rigid 4x4, RAS mm, from the image in which points are sought to the one in which
            they are known; None where the images do not tell.
        inverse_consistency_mm: mean distance, over places of the first image, between a place and
            where the surveys there and back put it; None where one of them found nothing.
        agreement: share of the pairs of places that follow the pose, 0 to 1.
        similarity: mean cosine of these pairs.
        support: sum of these cosines over the number of places that were asked.
        structure_margin: see `structure_margin`; None where it was not asked.
    """

    matrix: Matrix | None
    inverse_consistency_mm: float | None
    agreement: float
    similarity: float
    support: float
    structure_margin: float | None = None

    def __bool__(self) -> bool:
        """Whether it is told clearly."""
        error = self.inverse_consistency_mm
        consistent = error is not None and error <= CONSISTENT_MM
        margin = self.structure_margin
        structured = margin is None or margin >= CLEAR_MARGIN
        followed = self.agreement >= AGREEING and self.similarity >= SCORE_LEAST
        return consistent and followed and structured

    def report(self) -> dict[str, Any]:
        """Plain values."""
        error, margin = self.inverse_consistency_mm, self.structure_margin
        return {
            "matrix_ras": None if self.matrix is None else self.matrix.tolist(),
            "inverse_consistency_mm": None if error is None else round(error, 2),
            "agreement": round(self.agreement, 3),
            "similarity": round(self.similarity, 3),
            "structure_margin": None if margin is None else round(margin, 3),
            "clear": bool(self),
        }


def told_by(there: Survey, back: Survey, laid: Matrix, min_similarity: float) -> Pose:
    """The pose that two surveys tell.

    Args:
        there: from the first image to the second, as that was embedded.
        back: from the second to the first.
        laid: rigid 4x4, RAS mm, how the second image was moved before it was embedded.
        min_similarity: of a pair that counts.
    """
    if there.coarse is None:
        return Pose(None, None, 0.0, 0.0, 0.0)
    points, onto = there.pairs.here, there.coarse
    ends = apply(onto, points)
    counted = there.pairs.scores >= min_similarity
    near = (ends - there.pairs.there).norm(dim=1) <= COARSE.inlier_threshold_mm
    agree = counted & near
    agreement = float(agree.sum() / counted.sum().clamp_min(1))
    alike = float(there.pairs.scores[agree].sum())
    similarity, support = alike / max(1, int(agree.sum())), alike / len(agree)
    error = None
    if back.coarse is not None:
        error = float((apply(back.coarse, ends) - points).norm(dim=1).mean())
    return Pose(_rigid(onto, points) @ laid, error, agreement, similarity, support)


def _rigid(onto: torch.Tensor, points: torch.Tensor) -> Matrix:
    """The inverse of an affine 4x4, without scale and shear; exact at the middle of the points."""
    matrix = onto.cpu().double().numpy()
    rotation = nearest_rotation(matrix)
    middle = points.double().mean(0).cpu().numpy()
    end = matrix[:3, :3] @ middle + matrix[:3, 3]
    return invert(from_parts(rotation, end - rotation @ middle))
