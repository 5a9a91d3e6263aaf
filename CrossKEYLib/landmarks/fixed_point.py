"""Fixed-point matching: where points of one described image lie in another.

The nearest neighbour of a point alone is often wrong. Walks that alternate between the images,
A -> B -> A, settle at pairs which choose each other; those are right far more often. Several such
pairs around a query tell where it lies by a local affine fit, whether or not the query itself has
a distinctive place (Bai et al., arXiv 2311.15111).

A survey of fixed points over the whole image says roughly how the images lie; pairs far off that
are mistakes however well they agree with each other, and where a query has no good pairs of its
own, the survey's answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..config import EstimateConfig, FixedPointConfig
from ..errors import EstimationError
from ..estimation import DescriptorGrid, estimate_rigid
from ..estimation.matching import most_similar
from ..geometry.transform import apply
from ..models.described import Described
from .local_affine import local_affine

COARSE = EstimateConfig(inlier_threshold_mm=8.0, edge_tolerance_mm=10.0, hypotheses=5000)


class Located(NamedTuple):
    """Where queries lie in the other image.

    Attributes:
        points: ``[N, 3]`` RAS mm.
        scores: ``[N]`` cosine similarity of what supports them, at most 1.
        spreads: ``[N]`` mm, how far that support disagrees: residual of the fit, or, where only
            the nearest neighbour answers, how far from the query the way back ends.
        settled: ``[N]`` bool, whether pairs around the query itself chose each other. Nearest
            neighbours alone are not asked, so for them it is true.
    """

    points: torch.Tensor
    scores: torch.Tensor
    spreads: torch.Tensor
    settled: torch.Tensor


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
    return Located(
        points,
        scores,
        (here.points[back] - queries).norm(dim=1),
        torch.ones_like(scores, dtype=torch.bool),
    )


class _Pairs(NamedTuple):
    """Places here and there that choose each other, for each start.

    Attributes:
        here, there: ``[S, 3]`` RAS mm.
        scores: ``[S]`` cosine, -inf where the walk did not settle.
        key: ``[S]`` int64, equal for equal pairs.
    """

    here: torch.Tensor
    there: torch.Tensor
    scores: torch.Tensor
    key: torch.Tensor


class Survey(NamedTuple):
    """How two images lie to each other, roughly: the same for every query.

    Attributes:
        pairs: fixed points over the whole image.
        coarse: the affine matrix that most of them follow, 4x4; None without one.
    """

    pairs: _Pairs
    coarse: torch.Tensor | None


def survey_images(
    here: Described,
    there: Described,
    config: FixedPointConfig | None = None,
    spacing_mm: float = 2.0,
) -> Survey:
    """Fixed points of the whole images; arguments as `fixed_point`.

    Raises:
        EstimationError: an image without places.
    """
    config = config or FixedPointConfig()
    _check(here.points, here, there)
    pairs = _settled(_survey(here, config), here, there, config, spacing_mm)
    return Survey(pairs, _coarse_position(pairs))


def fixed_point(
    queries: torch.Tensor,
    described: torch.Tensor,
    here: Described,
    there: Described,
    config: FixedPointConfig | None = None,
    spacing_mm: float = 2.0,
    survey: Survey | None = None,
) -> Located:
    """Locate queries by the fixed points around them; arguments as `nearest`.

    Args:
        queries: ``[N, 3]`` RAS mm in the image ``here``.
        described: ``[N, D]``, their descriptors.
        here: places of the image that holds the queries.
        there: places of the other image.
        config: seeds, limits and fit.
        spacing_mm: of the grids on which the places of both images lie.
        survey: of these images, where it is known already.

    Raises:
        EstimationError: shapes that do not belong together, or no places.
    """
    config = config or FixedPointConfig()
    _check(queries, here, there)
    pairs, coarse = survey or survey_images(here, there, config, spacing_mm)
    around = _around(queries, here, config, spacing_mm)
    starts, where = around.unique(return_inverse=True)
    exists = starts < len(here)
    found = _settled(torch.where(exists, starts, 0), here, there, config, spacing_mm)
    weights = _coherent(found, coarse, config) * exists
    own = weights[where] * _once(found.key[where])
    answer = _predict(queries, found, where, own, config.reach_mm, config)
    everywhere = torch.arange(len(pairs.key), device=queries.device).expand(len(queries), -1)
    shared = _coherent(pairs, coarse, config).expand(len(queries), -1)
    rough = _predict(queries, pairs, everywhere, shared, config.survey_reach_mm, config)
    alone = nearest(queries, described, here, there, spacing_mm)
    for better in (rough, answer):
        enough = better.support >= config.fewest
        alone = Located(
            torch.where(enough[:, None], better.points, alone.points),
            torch.where(enough, better.scores, alone.scores),
            torch.where(enough, better.spreads, alone.spreads),
            answer.support >= config.fewest,
        )
    return alone


class _Prediction(NamedTuple):
    """As `Located`, and the number of pairs that count, ``[N]``."""

    points: torch.Tensor
    scores: torch.Tensor
    spreads: torch.Tensor
    support: torch.Tensor


def _settled(
    starts: torch.Tensor,
    here: Described,
    there: Described,
    config: FixedPointConfig,
    spacing_mm: float,
) -> _Pairs:
    """Alternate nearest neighbours from each start until it comes back to where it was."""
    now, partner = starts.clone(), torch.zeros_like(starts)
    scores = torch.full_like(here.points[now, 0], -torch.inf)
    going = torch.arange(len(now), device=now.device)
    for _ in range(config.iterations):
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
    exact = _refined(here.descriptors[now], partner, there, spacing_mm)
    return _Pairs(here.points[now], exact, scores, now * len(there) + partner)


def _coarse_position(survey: _Pairs) -> torch.Tensor | None:
    """The affine matrix that most pairs of the whole image follow, 4x4; None without one."""
    kept = survey.scores > -torch.inf
    generator = torch.Generator().manual_seed(0)  # a search, whose answer hardly depends on it
    result = estimate_rigid(
        survey.there[kept], survey.here[kept], COARSE, generator, survey.scores[kept]
    )
    return None if result.matrix is None else torch.as_tensor(result.matrix).to(survey.here)


def _coherent(pairs: _Pairs, coarse: torch.Tensor | None, config: FixedPointConfig) -> torch.Tensor:
    """Weight ``[S]`` of each pair: settled, similar, and not far off where the images lie."""
    weights = (pairs.scores >= config.min_similarity).float()
    if coarse is None:
        return weights
    off = (apply(coarse, pairs.here) - pairs.there).norm(dim=1)
    return weights * (1 - (off / config.gate_mm).square()).clamp_min(0).square()


def _predict(
    queries: torch.Tensor,
    pairs: _Pairs,
    where: torch.Tensor,
    weights: torch.Tensor,
    reach_mm: float,
    config: FixedPointConfig,
) -> _Prediction:
    """Fit to each query's pairs ``where [N, S]``; pairs beyond the reach do not count."""
    distance = (pairs.here[where] - queries[:, None]).norm(dim=2)
    weights = weights * (1 - (distance / reach_mm).square()).clamp_min(0).square()
    points, shares, spreads = local_affine(
        queries, pairs.here[where], pairs.there[where], weights, config.fit
    )
    scores = pairs.scores.nan_to_num(neginf=0)[where]
    support = (shares * scores).sum(1) / shares.sum(1).clamp_min(1e-9)
    return _Prediction(points, support, spreads, (weights > 1e-3).sum(1))


def _refined(
    described: torch.Tensor, found: torch.Tensor, there: Described, spacing_mm: float
) -> torch.Tensor:
    """Between the places of the grid: the peak of a parabola through each place's similarity and
    its neighbours', along each axis; ``[N, 3]`` RAS mm. Without it all of a region's answers are
    rounded to the same side."""
    cells = DescriptorGrid(there.points, there.descriptors, spacing_mm)
    points = there.points[found]
    last = len(there) - 1
    middle = (described * there.descriptors[found]).sum(1)
    steps = []
    for step in spacing_mm * torch.eye(3).to(points):
        sides = [cells.lookup(points + sign * step) for sign in (-1, 1)]
        below, above = (
            (described * there.descriptors[index.clamp_max(last)]).sum(1) for index in sides
        )
        bend = below - 2 * middle + above
        inside = (sides[0] <= last) & (sides[1] <= last) & (bend < -1e-6)
        shift = torch.where(inside, (below - above) / (2 * bend.clamp_max(-1e-6)), 0)
        steps.append(shift.clamp(-0.5, 0.5))
    return points + spacing_mm * torch.stack(steps, 1)


def _once(key: torch.Tensor) -> torch.Tensor:
    """1 for the first occurrence of each key in a row ``[N, S]``, 0 for its repetitions."""
    ordered, order = key.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.float32)
    first[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).float()
    return torch.zeros_like(first).scatter(1, order, first)


def _survey(here: Described, config: FixedPointConfig) -> torch.Tensor:
    """Index of one place per cube of the whole image."""
    cubes = torch.floor(here.points / config.survey_mm).long()
    _, cube = cubes.unique(dim=0, return_inverse=True)
    order = cube.argsort(stable=True)
    counts = cube.bincount()
    return order[counts.cumsum(0) - counts + counts // 2]  # from the middle of each cube's list


def _around(
    queries: torch.Tensor, here: Described, config: FixedPointConfig, spacing_mm: float
) -> torch.Tensor:
    """Index ``[N, S]`` of the places that seeds around each query fall on; M where is none."""
    cells = DescriptorGrid(here.points, here.descriptors, spacing_mm)
    return cells.lookup(queries[:, None] + _ball(config).to(queries))


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
