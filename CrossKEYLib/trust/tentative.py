"""The matches from which registration chose, so that the trust can repeat the choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import ConsensusConfig
from ..estimation.consensus import strongest


@dataclass(frozen=True, eq=False)
class Tentative:
    """The matches from which those that support each other were chosen.

    Wrong matches support each other too. The choice is therefore repeated for shuffled matches and
    for each half of the matches.

    Attributes:
        points_fixed, points_moving: ``[K, 3]`` RAS mm, paired row by row, best first.
        scores: ``[K]`` of their descriptors.
        config: how they are chosen; all are taken when missing.
    """

    points_fixed: torch.Tensor
    points_moving: torch.Tensor
    scores: torch.Tensor
    config: ConsensusConfig | None

    def chosen(
        self, rows: torch.Tensor | None = None, points_moving: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both ends of the matches that support each other, among the rows that a bool ``[K]``
        selects, or with other moving points ``[K, 3]``."""
        moving = self.points_moving if points_moving is None else points_moving
        ends, scores = (self.points_fixed, moving), self.scores
        if rows is not None:
            ends, scores = (ends[0][rows], ends[1][rows]), scores[rows]
        if self.config is None:
            return ends
        kept = strongest(*ends, scores, self.config)
        return ends[0][kept], ends[1][kept]
