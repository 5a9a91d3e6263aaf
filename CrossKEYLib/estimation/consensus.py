"""Which matches support each other: right ones agree in their distances, wrong ones rarely do.

A rigid motion keeps the distance between any two points, so the edge between two right matches has
the same length in both images. Each match is scored by the matches with which it agrees, weighted
by their own scores: a few power iterations towards the first eigenvector of the agreement matrix
(spectral matching, Leordeanu and Hebert, ICCV 2005). No orientation is assumed.
"""

from __future__ import annotations

import torch

from ..config import ConsensusConfig
from .matching import Matches
from .ransac import independence

_LEAST = 1e-3  # initial weight of the match with the lowest score


def supported(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    matches: Matches,
    config: ConsensusConfig,
) -> Matches:
    """The matches with most support, best first; their scores are their support, in [0, 1].

    Args:
        points_fixed: ``[M, 3]`` RAS mm, to which the matches refer.
        points_moving: ``[N, 3]`` RAS mm, likewise.
        matches: with scores, higher is better.
        config: tolerance, reach, and the share that is kept.
    """
    a, b = matches.indices.T
    support = support_of(points_fixed[a], points_moving[b], matches.scores, config)
    kept = _best(support, config)
    return Matches(matches.indices[kept], support[kept])


def strongest(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    scores: torch.Tensor,
    config: ConsensusConfig,
) -> torch.Tensor:
    """Indices of the matches with most support, best first; arguments as in `support_of`."""
    return _best(support_of(points_fixed, points_moving, scores, config), config)


def _best(support: torch.Tensor, config: ConsensusConfig) -> torch.Tensor:
    count = max(config.fewest, round(config.share * len(support)))
    return support.argsort(descending=True, stable=True)[:count]


def support_of(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    scores: torch.Tensor,
    config: ConsensusConfig,
) -> torch.Tensor:
    """Support of each match ``[K]``, 1 for the largest.

    Args:
        points_fixed, points_moving: ``[K, 3]`` RAS mm, paired row by row.
        scores: ``[K]`` of the matches, their initial weights.
        config: tolerance and reach.
    """
    if not len(scores):
        return scores
    apart = torch.cdist(points_moving, points_moving)
    off = torch.cdist(points_fixed, points_fixed).sub_(apart)
    agree = off.div_(config.edge_tolerance_mm).square_().neg_().add_(1).clamp_min_(0)
    agree.masked_fill_(apart < config.nearest_mm, 0)  # the same structure, no further support
    agree.mul_(apart.div_(config.reach_mm).square_().mul_(-0.5).exp_())
    # Many matches of one structure count as one.
    alone = independence(points_fixed, points_moving, config.nearest_mm)
    support = scores.clamp_min(_LEAST)
    for _ in range(config.iterations):
        support = agree @ (alone * support)
        support = support / support.amax().clamp_min(1e-12)
    return support
