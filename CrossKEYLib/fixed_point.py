"""Fixed-point matching: where points of one described image lie in another.

The nearest neighbour of a point alone is often wrong. Walks that alternate between the images,
A -> B -> A, settle at pairs which choose each other; those are right far more often. Several such
pairs around a query tell where it lies by a local affine fit, whether or not the query itself has
a distinctive place (Bai et al., arXiv 2311.15111).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from .errors import EstimationError
from .estimation import DescriptorField, kabsch
from .model import Described

_TILE_ELEMENTS = 16_000_000  # similarities held at once: 64 MB
_FIRST_REACH = 4.0  # of the inlier distance; the fit starts with this tolerance


@dataclass(frozen=True)
class FixedPointConfig:
    """How pairs around a query are found and combined."""

    seed_radius_mm: float = 12.0
    seed_spacing_mm: float = 6.0
    iterations: int = 5  # walks A -> B -> A, at most
    min_similarity: float = 0.3  # of a pair that counts
    reach_mm: float = 24.0  # pairs farther from the query do not count
    inlier_mm: float = 3.0  # residual at which a pair counts a quarter
    stiffness_mm2: float = 60.0  # of the fit against any but rigid motion
    fewest: int = 5  # pairs; below, the nearest neighbour is the answer
    fit_iterations: int = 12


class Located(NamedTuple):
    """Where queries lie in the other image.

    Attributes:
        points: ``[N, 3]`` RAS mm.
        scores: ``[N]`` cosine similarity of what supports them, at most 1.
        spreads: ``[N]`` mm, how far that support disagrees: residual of the fit, or, where the
            nearest neighbour answers, how far from the query the way back ends.
    """

    points: torch.Tensor
    scores: torch.Tensor
    spreads: torch.Tensor


def nearest(
    queries: torch.Tensor,
    described: torch.Tensor,
    here: Described,
    there: Described,
    spacing_mm: float = 2.0,
) -> Located:
    """The baseline: the most similar place for each query, and the way back from it.

    Args:
        queries: ``[N, 3]`` RAS mm in the image ``here``.
        described: ``[N, D]``, their descriptors.
        here: places of the image that holds the queries.
        there: places of the other image, on a grid.
        spacing_mm: of that grid; answers are refined to a fraction of it.

    Raises:
        EstimationError: shapes that do not belong together, or no places.
    """
    _check(queries, here, there)
    scores, found = most_similar(described, there.descriptors)
    _, back = most_similar(there.descriptors[found], here.descriptors)
    points = _refined(described, found, there, spacing_mm)
    return Located(points, scores, (here.points[back] - queries).norm(dim=1))


def fixed_point(
    queries: torch.Tensor,
    described: torch.Tensor,
    here: Described,
    there: Described,
    config: FixedPointConfig = FixedPointConfig(),
    spacing_mm: float = 2.0,
) -> Located:
    """Locate queries by the fixed points around them; arguments as `nearest`.

    Args:
        queries: ``[N, 3]`` RAS mm in the image ``here``.
        described: ``[N, D]``, their descriptors.
        here: places of the image that holds the queries.
        there: places of the other image.
        config: seeds, limits and fit.
        spacing_mm: of the grids on which the places of both images lie.

    Raises:
        EstimationError: shapes that do not belong together, or no places.
    """
    alone = nearest(queries, described, here, there, spacing_mm)
    seeds = queries[:, None] + _ball(config).to(queries)
    field = DescriptorField(here.points, here.descriptors, spacing_mm)
    cells = field.lookup(seeds)  # [N, S], M where there is no place
    starts, where = cells.unique(return_inverse=True)
    exists = starts < len(here)
    ends = _walk(torch.where(exists, starts, 0), here, there, config.iterations)
    ends = _Pairs(ends.here, ends.there, ends.scores.masked_fill(~exists, -torch.inf))
    exact = _refined(here.descriptors[ends.here], ends.there, there, spacing_mm)
    here_index, there_index, scores = (part[where] for part in ends)
    weights = _once(here_index, there_index) * (scores >= config.min_similarity)
    pairs = here.points[here_index], exact[where]
    distance = (pairs[0] - queries[:, None]).norm(dim=2)
    weights = weights * (1 - (distance / config.reach_mm).square()).clamp_min(0).square()
    points, shares, spreads = _fit(queries, *pairs, weights, config)
    enough = (weights > 0).sum(1) >= config.fewest
    support = (shares * scores.nan_to_num(neginf=0)).sum(1) / shares.sum(1).clamp_min(1e-9)
    return Located(
        torch.where(enough[:, None], points, alone.points),
        torch.where(enough, support, alone.scores),
        torch.where(enough, spreads, alone.spreads),
    )


def most_similar(queries: torch.Tensor, pool: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest cosine ``[N]`` of each query over the pool and its index, in bounded memory."""
    best = queries.new_full((len(queries),), -torch.inf)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    step = max(1, _TILE_ELEMENTS // max(1, len(queries)))
    for start in range(0, len(pool), step):
        values, places = (queries @ pool[start : start + step].T).max(1)
        better = values > best
        best = torch.where(better, values, best)
        index = torch.where(better, places + start, index)
    return best, index


class _Pairs(NamedTuple):
    """Places here and there that choose each other, and their cosine; -inf where none was found."""

    here: torch.Tensor
    there: torch.Tensor
    scores: torch.Tensor


def _walk(starts: torch.Tensor, here: Described, there: Described, iterations: int) -> _Pairs:
    """Alternate nearest neighbours from each start until it comes back to where it was."""
    now = starts.clone()
    partner = torch.zeros_like(now)
    scores = torch.full_like(here.points[now, 0], -torch.inf)
    going = torch.arange(len(now), device=now.device)
    for _ in range(iterations):
        if len(going) == 0:
            break
        # Many walks meet; each place is asked once.
        places, back_to = now[going].unique(return_inverse=True)
        similarity, found = most_similar(here.descriptors[places], there.descriptors)
        targets, of_found = found.unique(return_inverse=True)
        _, back = most_similar(there.descriptors[targets], here.descriptors)
        back = back[of_found]
        settled = (back == places)[back_to]
        done = going[settled]
        partner[done] = found[back_to][settled]
        scores[done] = similarity[back_to][settled]
        now[going] = back[back_to]
        going = going[~settled]
    return _Pairs(now, partner, scores)


def _refined(
    described: torch.Tensor, found: torch.Tensor, there: Described, spacing_mm: float
) -> torch.Tensor:
    """Between the places of the grid: the peak of a parabola through each place's similarity and
    its neighbours', along each axis; ``[N, 3]`` RAS mm. Without it all of a region's answers are
    rounded to the same side."""
    field = DescriptorField(there.points, there.descriptors, spacing_mm)
    points = there.points[found]
    last = len(there) - 1
    middle = (described * there.descriptors[found]).sum(1)
    steps = []
    for step in spacing_mm * torch.eye(3).to(points):
        sides = [field.lookup(points + sign * step) for sign in (-1, 1)]
        below, above = (
            (described * there.descriptors[index.clamp_max(last)]).sum(1) for index in sides
        )
        bend = below - 2 * middle + above
        inside = (sides[0] <= last) & (sides[1] <= last) & (bend < -1e-6)
        shift = torch.where(inside, (below - above) / (2 * bend.clamp_max(-1e-6)), 0)
        steps.append(shift.clamp(-0.5, 0.5))
    return points + spacing_mm * torch.stack(steps, 1)


def _once(here_index: torch.Tensor, there_index: torch.Tensor) -> torch.Tensor:
    """1 for the first occurrence of each pair in a row ``[N, S]``, 0 for its repetitions."""
    key = here_index * (there_index.max() + 1) + there_index
    ordered, order = key.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.float32)
    first[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).float()
    return torch.zeros_like(first).scatter(1, order, first)


def _fit(
    queries: torch.Tensor,
    here: torch.Tensor,
    there: torch.Tensor,
    weights: torch.Tensor,
    config: FixedPointConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Robust local affine fit, iteratively reweighted (Geman-McClure with shrinking reach).

    Args:
        queries: ``[N, 3]``; here, there: ``[N, S, 3]`` pairs; weights: ``[N, S]``.

    Returns:
        Predicted ``[N, 3]``, final weights ``[N, S]``, weighted RMS residual ``[N]``.
    """
    shares, moved, points = weights, there, queries
    for step in range(config.fit_iterations):
        moved, points = _affine(queries, here, there, shares, config.stiffness_mm2)
        residual = (moved - there).norm(dim=2)
        done = min(1.0, 2 * step / config.fit_iterations)
        reach = config.inlier_mm * (_FIRST_REACH + (1 - _FIRST_REACH) * done)
        shares = weights / (1 + (residual / reach).square()).square()
    residual = (moved - there).square().sum(2)
    spread = ((shares * residual).sum(1) / shares.sum(1).clamp_min(1e-9)).sqrt()
    return points, shares, spread


def _affine(
    queries: torch.Tensor,
    here: torch.Tensor,
    there: torch.Tensor,
    weights: torch.Tensor,
    stiffness_mm2: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rigid fit, and on top of it the affine change that the pairs support: with few pairs, or
    pairs in one plane, the ridge leaves it rigid. Moves the pairs and the queries."""
    kept = weights.double() + 1e-9
    rigid = kabsch(there, here, kept).to(queries)
    rigid = torch.where(rigid.isfinite(), rigid, torch.eye(4).to(queries))
    turned, aim = (
        x @ rigid[:, :3, :3].mT + rigid[:, None, :3, 3] for x in (here, queries[:, None])
    )
    share = (kept / kept.sum(1, keepdim=True)).to(queries)[..., None]
    middle, goal = (share * turned).sum(1, keepdim=True), (share * there).sum(1, keepdim=True)
    centred, rest = turned - middle, there - goal - (turned - middle)
    total = weights.sum(1).clamp_min(1e-9)[:, None, None]
    spread = (share * centred).mT @ centred * total
    ridge = stiffness_mm2 * torch.eye(3).to(queries)
    change = torch.linalg.solve(spread + ridge, (share * centred).mT @ rest * total)
    return centred + centred @ change + goal, ((aim - middle) + (aim - middle) @ change + goal)[
        :, 0
    ]


def _ball(config: FixedPointConfig) -> torch.Tensor:
    """Offsets ``[S, 3]`` mm of the seeds around a query, itself first."""
    reach = int(config.seed_radius_mm / config.seed_spacing_mm)
    line = torch.arange(-reach, reach + 1) * config.seed_spacing_mm
    offsets = torch.cartesian_prod(line, line, line)
    offsets = offsets[offsets.norm(dim=1) <= config.seed_radius_mm]
    return offsets[offsets.norm(dim=1).argsort(stable=True)]


def _check(queries: torch.Tensor, here: Described, there: Described) -> None:
    if queries.ndim != 2 or queries.shape[1] != 3:
        raise EstimationError(f"points [N, 3] expected, got {list(queries.shape)}")
    if not len(here) or not len(there):
        raise EstimationError("both images need described places; one of them has none")
