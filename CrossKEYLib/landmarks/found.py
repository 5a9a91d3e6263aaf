"""Whether a point that was found in another image may be relied on: the one rule for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ..descriptors.uae import Embedding
from ..geometry.filters import sample_channels
from ..geometry.transform import invert
from .fixed_point import Located
from .pose import SCORE_LEAST, Pose

Found = Literal["good", "check", "absent"]
Why = Literal["outside", "unsettled", "spread", "score"]
# Chosen on points of one patient's T1 found in the deformed T2 and FLAIR; see docs/landmarks.md.
SPREAD_GOOD_MM, SCORE_GOOD = 1.5, 0.70  # worse is to be checked
SPREAD_MOST_MM = 4.0  # worse still, or a score under `SCORE_LEAST`, is no place


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points of one image found in another.

    Attributes:
        points: ``[N, 3]`` RAS mm in the other image.
        scores: ``[N]`` cosine similarity of what supports them, at most 1.
        spreads: ``[N]`` mm, how far that support disagrees.
        found: ``N`` words. "absent": the place lies where the other image shows nothing, no pairs
            around the point choose each other, or they hardly agree; "check": they agree less well
            than for a "good" point.
        why: ``N`` lists of what speaks against "good": the place lies "outside" of what the image
            shows, the pairs around it are "unsettled", their "spread" is large, their "score" low.
        pose: how the images lie to each other.
    """

    points: torch.Tensor
    scores: torch.Tensor
    spreads: torch.Tensor
    found: list[Found]
    why: list[list[Why]]
    pose: Pose


def judged(located: Located, there: Embedding) -> list[tuple[Found, list[Why]]]:
    """A word for each point, and why; ``located`` as ``there`` was embedded."""
    empty = outside(there, located.points)
    columns = (located.scores, located.spreads, located.settled, empty)
    return [word(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def word(score: float, spread_mm: float, settled: bool, empty: bool) -> tuple[Found, list[Why]]:
    """For one point, and what speaks against "good"; see `Landmarks`."""
    against: dict[Why, bool] = {
        "outside": empty,
        "unsettled": not settled,
        "spread": spread_mm > SPREAD_GOOD_MM,
        "score": score < SCORE_GOOD,
    }
    reasons: list[Why] = [name for name, holds in against.items() if holds]
    if empty or not settled or spread_mm > SPREAD_MOST_MM or score < SCORE_LEAST:
        return "absent", reasons
    return ("check" if reasons else "good"), reasons


def outside(image: Embedding, points: torch.Tensor) -> torch.Tensor:
    """Which RAS points ``[N, 3]`` have nothing of the image within a cell of the fine head,
    ``[N]`` bool."""
    near = F.max_pool3d(image.filled.float()[None], 3, 1, 1)
    return sample_channels(near, invert(image.affine(2)), points, "nearest")[0] < 0.5
