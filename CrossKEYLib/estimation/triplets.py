"""Triplets of matches: drawn, tested for congruence, and solved for their rigid motion."""

from __future__ import annotations

import math

import torch

from ..config import EstimateConfig

_DECK = 65_536
_CARDS_PER_MATCH = 16  # resolution of the drawing probabilities
_PAIRS_PER_ROUND = 50_000
_THIRDS_PER_PAIR = 24
_FEWEST_PER_ROUND = 375  # the search ends early when a round yields fewer triplets
_TRIPLETS_PER_ROUND = 250_000  # bounds the work where nearly all pairs agree,
_TRIPLETS_PER_HYPOTHESIS = 16  # and so do so many for each that is asked for


def sampling_table(weights: torch.Tensor, scores: torch.Tensor | None) -> torch.Tensor:
    """Indices of matches, each as often as it should be drawn, for uniform draws.

    Probability is proportional to ``weights [K]`` and, with ``scores [K]``, rises linearly in
    their rank, threefold from the worst to the best.
    """
    if scores is not None:
        rank = torch.argsort(torch.argsort(scores.to(weights.device), stable=True), stable=True)
        weights = weights * (0.5 + rank / max(1, len(rank) - 1))
    cumulative = torch.cumsum(weights.cpu().double(), 0)
    size = max(_DECK, _CARDS_PER_MATCH * len(weights))
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size * cumulative[-1]
    table = torch.searchsorted(cumulative, position).clamp_max(len(weights) - 1)
    return table.to(weights.device)


def draw_triplets(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    table: torch.Tensor,
    config: EstimateConfig,
    generator: torch.Generator,
) -> torch.Tensor:
    """Up to ``config.hypotheses`` triplets ``[H, 3]`` whose triangles could be congruent.

    Pairs are tested first, and third matches are drawn only for pairs that pass. A few right
    matches are then combined far more often than if all three were drawn at once.
    """
    found: list[torch.Tensor] = []
    missing = config.hypotheses
    most = min(_TRIPLETS_PER_ROUND, _TRIPLETS_PER_HYPOTHESIS * config.hypotheses)
    for _ in range(math.ceil(config.hypotheses / _FEWEST_PER_ROUND)):
        first = _draw(table, _PAIRS_PER_ROUND, generator)
        second = _draw(table, _PAIRS_PER_ROUND, generator)
        agree = _edges_agree(fixed, moving, first, second, config)
        pairs = torch.stack([first[agree], second[agree]], 1)
        pairs = pairs[: max(1, most // _THIRDS_PER_PAIR)]
        pairs = pairs.repeat_interleave(_THIRDS_PER_PAIR, 0)
        triplets = torch.cat([pairs, _draw(table, len(pairs), generator)[:, None]], 1)
        for side in (0, 1):
            agree = _edges_agree(fixed, moving, triplets[:, side], triplets[:, 2], config)
            triplets = triplets[agree]
        triplets = triplets[_wide(moving[triplets], config) & _wide(fixed[triplets], config)]
        if len(triplets) > missing:  # thinned evenly, so that all pairs remain represented
            keep = torch.linspace(0, len(triplets) - 1, missing, device=triplets.device)
            triplets = triplets[keep.long()]
        found.append(triplets)
        missing -= len(triplets)
        if missing <= 0:
            break
    return torch.cat(found)


def solve_triplets(points_fixed: torch.Tensor, points_moving: torch.Tensor) -> torch.Tensor:
    """Least-squares rigid ``[H, 4, 4]`` for triangles ``[H, 3, 3]`` (vertex, xyz), in their dtype.

    For three points the optimum aligns the two planes and leaves one angle, which has a closed
    form. This is many times faster than a batch of singular value decompositions, with the same
    result.
    """
    centre_fixed, centre_moving = points_fixed.mean(1), points_moving.mean(1)
    frame_fixed, frame_moving = _plane_frame(points_fixed), _plane_frame(points_moving)
    flat_fixed = (points_fixed - centre_fixed[:, None]) @ frame_fixed
    flat_moving = (points_moving - centre_moving[:, None]) @ frame_moving
    xf, yf, xm, ym = *flat_fixed.unbind(2)[:2], *flat_moving.unbind(2)[:2]
    angle = torch.atan2((xm * yf - ym * xf).sum(1), (xm * xf + ym * yf).sum(1))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], 1).view(-1, 3, 3)
    matrix = points_fixed.new_zeros(len(points_fixed), 4, 4)
    matrix[:, :3, :3] = frame_fixed @ turn @ frame_moving.mT
    matrix[:, :3, 3] = centre_fixed - (matrix[:, :3, :3] @ centre_moving[..., None])[..., 0]
    matrix[:, 3, 3] = 1
    return matrix


def _draw(table: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    place = torch.randint(len(table), (count,), generator=generator, device=generator.device)
    return table[place.to(table.device)]


def _edges_agree(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    config: EstimateConfig,
) -> torch.Tensor:
    # Taking rows by index_select is three times as fast as by fixed[a].
    edge_fixed, edge_moving = (
        (points.index_select(0, a) - points.index_select(0, b)).norm(dim=1)
        for points in (fixed, moving)
    )
    long = torch.minimum(edge_fixed, edge_moving) >= config.min_edge_mm
    return long & ((edge_fixed - edge_moving).abs() <= config.edge_tolerance_mm)


def _wide(triangles: torch.Tensor, config: EstimateConfig) -> torch.Tensor:
    """Whether the smallest height is at least half of ``min_edge_mm``; slivers do not fix a
    rotation."""
    a, b, c = triangles.unbind(1)
    double_area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    longest = torch.stack([(b - a).norm(dim=1), (c - a).norm(dim=1), (c - b).norm(dim=1)]).amax(0)
    return double_area >= 0.5 * config.min_edge_mm * longest


def _plane_frame(triangles: torch.Tensor) -> torch.Tensor:
    """Right-handed frames ``[H, 3, 3]`` (columns) with the third axis normal to the triangle."""
    edge = triangles[:, 1] - triangles[:, 0]
    first = torch.nn.functional.normalize(edge, dim=1)
    normal = torch.linalg.cross(edge, triangles[:, 2] - triangles[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=1)
    return torch.stack([first, torch.linalg.cross(normal, first), normal], dim=2)
