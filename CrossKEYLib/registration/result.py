"""What a registration returns, and its report."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypedDict

import torch

from ..estimation.matching import Matches
from ..geometry.transform import Matrix
from ..keypoints.sampling import spread_first
from ..models.described import Described
from ..runtime.version import __version__
from ..trust.assess import Trust

_COUNTED_OR_SAID = ("n_inliers", "verdict", "reasons")  # of `Trust`, beside its numbers


class Judged(TypedDict):
    """The values that a report and an outcome of the benchmark have in common.

    ``n_matches`` and ``n_inliers`` count all matches that the estimation used;
    ``n_reported_matches`` counts the best of them, by which matching precision is measured; as many
    matches are shown in pictures, scenes and the panel. ``n_keypoints_mri`` and
    ``n_keypoints_ius`` count described points. ``trust`` holds the other numbers of `Trust` by
    their names; None where one could not be determined.
    """

    verdict: str
    accepted: bool
    reasons: list[str]
    confidence: float
    predicted_tre_mm: float | None
    n_keypoints_mri: int
    n_keypoints_ius: int
    n_matches: int
    n_inliers: int
    n_reported_matches: int
    trust: dict[str, float | None]
    device: str
    model: str
    version: str


class Report(Judged):
    """Plain values of one registration, as ``--report`` writes them."""

    matrix_ras: list[list[float]] | None
    inlier_rms_mm: float | None
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Registration:
    """Outcome of one registration; false when it must not be used.

    Attributes:
        matrix: ``T_fixed_moving`` (4x4, RAS mm) from iUS to MRI; None if nothing was found. A
            refused registration may hold one, for inspection only.
        trust: figures and verdict.
        fixed, moving: described points of MRI and iUS.
        matches: ``[K]`` rows (fixed, moving) that the estimation used, best first.
        inliers: ``[K]`` bool over them.
        agreeing: all matches that were found and agree on the transform, inliers included.
        n_reported: how many of the best matches are reported, and how many matches are drawn.
        seconds: per stage and "total".
        device: on which it was computed.
        model: name of the model.
    """

    matrix: Matrix | None
    trust: Trust
    fixed: Described
    moving: Described
    matches: Matches
    inliers: torch.Tensor
    agreeing: Matches
    n_reported: int
    seconds: dict[str, float]
    device: str
    model: str

    def __bool__(self) -> bool:
        return self.trust.accepted

    def matched_points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``[K, 3]`` RAS mm in the MRI, and in the iUS."""
        return (
            self.fixed.points[self.matches.indices[:, 0]],
            self.moving.points[self.matches.indices[:, 1]],
        )

    def reported_points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The best matches: ``[R, 3]`` RAS mm in the MRI, and in the iUS."""
        fixed, moving = self.matched_points()
        return fixed[: self.n_reported], moving[: self.n_reported]

    def drawn(self) -> tuple[Matches, torch.Tensor]:
        """The matches that pictures, scenes and the panel show, and ``[R]`` bool, which agree.

        The matches that support each other best lie close together. The ones shown are therefore
        spread evenly over the iUS, and taken from all that agree. The share of those that do not
        agree is that of the matches which the estimation used. Any number of the first ones is
        spread as evenly.
        """
        wrong = self.matches.indices[~self.inliers], self.matches.scores[~self.inliers]
        share = 1 - len(wrong[0]) / max(len(self.matches), 1)
        indices, scores, turns, counts = [], [], [], []
        for (rows, values), part in (
            ((self.agreeing.indices, self.agreeing.scores), share),
            (wrong, 1 - share),
        ):
            chosen = spread_first(self.moving.points[rows[:, 1]], round(part * self.n_reported))
            indices.append(rows[chosen])
            scores.append(values[chosen])
            counts.append(len(chosen))
            turns.append((torch.arange(len(chosen)) + 0.5) / max(part, 1e-9))
        order = torch.cat(turns).argsort(stable=True).to(self.inliers.device)
        agree = (order < counts[0])[: self.n_reported]
        kept = order[: self.n_reported]
        return Matches(torch.cat(indices)[kept], torch.cat(scores)[kept]), agree

    def drawn_points(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the `drawn` matches: ``[R, 3]`` RAS mm in the MRI, ``[R, 3]`` in the iUS, and ``[R]``
        bool, which agree."""
        matches, agree = self.drawn()
        fixed, moving = matches.indices.T
        return self.fixed.points[fixed], self.moving.points[moving], agree

    def report(self) -> Report:
        """Plain values."""
        trust = self.trust
        names = [field.name for field in fields(trust) if field.name not in _COUNTED_OR_SAID]
        return {
            "verdict": trust.verdict,
            "accepted": trust.accepted,
            "reasons": trust.reasons,
            "confidence": trust.confidence,
            "matrix_ras": None if self.matrix is None else self.matrix.tolist(),
            "predicted_tre_mm": trust.predicted_tre_mm,
            "n_keypoints_mri": len(self.fixed),
            "n_keypoints_ius": len(self.moving),
            "n_matches": len(self.matches),
            "n_inliers": int(self.inliers.sum()),
            "n_reported_matches": self.n_reported,
            "inlier_rms_mm": trust.inlier_rms_mm,
            "trust": {name: getattr(trust, name) for name in names},
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "device": self.device,
            "model": self.model,
            "version": __version__,
        }
