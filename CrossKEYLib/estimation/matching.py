"""Descriptors of two images -> matches between moving and fixed points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..config import MatchConfig
from ..errors import EstimationError
from ..geometry.transform import Matrix, apply
from ..runtime.precision import short_products

_TILE_ELEMENTS = 2_000_000  # similarities held at once: 8 MB, which caches hold
_EXACT = 1e-6  # added to distances, so that the ratio of two exact matches is 1
_RIVALS = 8192  # fixed points at most, taken at even steps, among which a rival is sought

# For candidates [start, stop): which queries may take them, bool [stop-start, N].
_Allowed = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Matches:
    """``indices [K, 2]`` int64, columns (fixed, moving); ``scores [K]``, higher is better, sorted
    from best to worst: one minus Lowe's ratio (1 without a rival, 0 with an equal one), or the
    cosine similarity if matches are ranked by that."""

    indices: torch.Tensor
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class Prior:
    """A start: a moving point is matched only with fixed points within ``capture_radius_mm`` of
    where ``T_fixed_moving`` (4x4, RAS mm) puts it."""

    T_fixed_moving: Matrix
    capture_radius_mm: float


def match(
    descriptors_fixed: torch.Tensor,
    descriptors_moving: torch.Tensor,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    config: MatchConfig,
    prior: Prior | None = None,
) -> Matches:
    """Pair moving with fixed points by cosine similarity, each moving point at most once.

    By default matches are ranked by Lowe's ratio (IJCV 2004): the descriptor distance to the best
    fixed point over that to its best rival. In homogeneous tissue a point is very similar to many
    others, so the similarity itself says little. Points within ``second_best_radius_mm`` of the
    best one show the same structure and are no rivals.

    ``nearest`` takes the most similar fixed point. ``mutual`` also requires that the moving point
    is the most similar one to this fixed point. ``ratio`` is mutual with a limit on Lowe's ratio.
    ``cycle`` requires that the moving point most similar to this fixed point lies within
    ``cycle_tolerance_mm`` of the first one (fixed-point matching, arXiv 2311.15111).

    Args:
        descriptors_fixed: ``[M, D]``, unit norm.
        descriptors_moving: ``[N, D]``, unit norm, same device.
        points_fixed: ``[M, 3]`` RAS mm.
        points_moving: ``[N, 3]`` RAS mm.
        config: method, thresholds and the number kept.
        prior: a start and its capture radius; fixed points beyond it are no candidates, in
            either direction.

    Returns:
        At most ``config.max_matches``, best first; there may be none.

    Raises:
        EstimationError: shapes that do not belong together.
    """
    _check(descriptors_fixed, points_fixed, descriptors_moving, points_moving)
    cycle, moved, pool, radius = config.method == "cycle", None, None, math.inf
    if prior is not None and len(points_moving):
        moved, radius = apply(prior.T_fixed_moving, points_moving), prior.capture_radius_mm
        pool = _inside_box(points_fixed, moved, radius)
        descriptors_fixed, points_fixed = descriptors_fixed[pool], points_fixed[pool]
    if not len(points_fixed) or not len(points_moving):
        return _none(points_fixed.device)
    within = None if moved is None else _within(moved, points_fixed, radius)
    scores, best = most_similar(descriptors_moving, descriptors_fixed, within)
    moving = torch.nonzero(scores > -torch.inf).squeeze(1)
    if config.method != "nearest":
        ends = best[moving]  # only these are tested for a cycle
        within = None if moved is None else _within(points_fixed[ends], moved, radius)
        _, back = most_similar(descriptors_fixed[ends], descriptors_moving, within)
        off = (points_moving[back] - points_moving[moving]).norm(dim=1)
        moving = moving[off <= config.cycle_tolerance_mm if cycle else back == moving]
    rank = scores[moving]
    if config.method == "ratio" or config.rank == "ratio":
        start = None if moved is None else moved[moving]
        every = -(-len(points_fixed) // _RIVALS)
        others, found = points_fixed[::every], points_fixed[best[moving]]
        rivals = _rivals(others, found, config.second_best_radius_mm, start, radius)
        second, _ = most_similar(descriptors_moving[moving], descriptors_fixed[::every], rivals)
        distinct = 1 - (_distance(scores[moving]) + _EXACT) / (_distance(second) + _EXACT)
        if config.rank == "ratio":
            rank = distinct
        if config.method == "ratio":
            passed = distinct > 1 - config.ratio
            moving, rank = moving[passed], rank[passed]

    order = torch.argsort(rank, descending=True, stable=True)[: config.max_matches]
    moving = moving[order]
    fixed = best[moving] if pool is None else pool[best[moving]]
    return Matches(torch.stack([fixed, moving], dim=1), rank[order])


def _none(device: torch.device) -> Matches:
    none = torch.zeros(0, 2, dtype=torch.int64, device=device)
    return Matches(none, torch.zeros(0, device=device))


def _check(
    descriptors_fixed: torch.Tensor,
    points_fixed: torch.Tensor,
    descriptors_moving: torch.Tensor,
    points_moving: torch.Tensor,
) -> None:
    for side, descriptors, points in (
        ("fixed", descriptors_fixed, points_fixed),
        ("moving", descriptors_moving, points_moving),
    ):
        if descriptors.ndim != 2 or points.shape != (len(descriptors), 3):
            raise EstimationError(
                f"{side}: descriptors [N, D] with points [N, 3] expected, got "
                f"{list(descriptors.shape)} with {list(points.shape)}"
            )
    if descriptors_fixed.shape[1] != descriptors_moving.shape[1]:
        raise EstimationError(
            f"descriptors of one model expected, got lengths {descriptors_fixed.shape[1]} (fixed) "
            f"and {descriptors_moving.shape[1]} (moving); describe both images with the same model"
        )


def most_similar(
    queries: torch.Tensor, pool: torch.Tensor, allowed: _Allowed | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest cosine ``[N]`` of unit ``queries [N, D]`` over ``pool [M, D]`` and its index in it;
    minus infinity where nothing is allowed.

    Computed in tiles of the pool, so memory does not grow with it. A tile gives its maxima; the
    index of a maximum is then looked up in the tile that has it, which is several times faster than
    to carry indices along.
    """
    step = max(1, min(len(pool), _TILE_ELEMENTS // max(1, len(queries))))
    room = pool.new_empty(step, len(queries))  # for one tile after the other

    def tile(start: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        part, wanted = pool[start : start + step], queries if rows is None else queries[rows]
        similarity = room.flatten()[: len(part) * len(wanted)].view(len(part), len(wanted))
        torch.mm(part, wanted.T, out=similarity)
        if allowed is not None:
            mask = allowed(start, start + len(part))
            similarity.masked_fill_(~(mask if rows is None else mask[:, rows]), -torch.inf)
        return similarity

    starts = range(0, len(pool), step)
    with short_products():
        best, winner = torch.stack([tile(start).amax(0) for start in starts]).max(0)
        index = torch.zeros_like(winner)
        for number in winner.unique().tolist():
            rows = (winner == number).nonzero().squeeze(1)
            index[rows] = tile(starts[number], rows).argmax(0) + starts[number]
    return best, index


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Far from the origin the matrix product loses precision, so the points are centred first.
    centre = a.mean(0)
    return torch.cdist(a - centre, b - centre)


def _within(queries: torch.Tensor, pool: torch.Tensor, radius_mm: float) -> _Allowed:
    return lambda start, stop: _distances(pool[start:stop], queries) <= radius_mm


def _rivals(
    points_fixed: torch.Tensor,
    found: torch.Tensor,
    apart_mm: float,
    moved: torch.Tensor | None,
    capture_radius_mm: float,
) -> _Allowed:
    """Candidates for the second best: away from the best one and inside the capture radius."""

    def allowed(start: int, stop: int) -> torch.Tensor:
        tile = points_fixed[start:stop]
        mask = _distances(tile, found) > apart_mm
        return mask if moved is None else mask & (_distances(tile, moved) <= capture_radius_mm)

    return allowed


def _inside_box(points: torch.Tensor, moved: torch.Tensor, margin_mm: float) -> torch.Tensor:
    low, high = moved.amin(0) - margin_mm, moved.amax(0) + margin_mm
    return torch.nonzero(((points >= low) & (points <= high)).all(dim=1)).squeeze(1)


def _distance(similarity: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of unit vectors; infinite where there is no candidate."""
    return torch.sqrt((2 - 2 * similarity).clamp_min(0))
