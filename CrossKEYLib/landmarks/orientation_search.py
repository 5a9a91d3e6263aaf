"""The pose of an image that may be turned in any way, from a coarse view of it.

An embedding bears a turned image up to some 40 degrees, and any orientation lies within 63 degrees
of one of the 24 of an octahedron; with 24 more, nineteen of twenty lie within 49 degrees of one.
Both images are shrunk, so that a head in 24 orientations takes about as long as a few times at full
size; the best orientations are looked at again as they then lie. A ball of 80 mm at full size costs
as much and found nothing: what tells the orientation is the shape of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..config import EstimateConfig, LandmarkConfig, MatchConfig
from ..estimation import estimate_rigid
from ..estimation.matching import match
from ..geometry import transform
from ..geometry.ct import windowed
from ..geometry.foreground import shown
from ..geometry.intensity import rescaled
from ..geometry.orientations import orientations
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume
from ..models.described import Described
from ..models.universal import UniversalModel
from .places import places, thinned

_POINTS = 800  # of the moving image
_SPARSE_MM = 4.0  # between the fixed image's places, in the shrunk world
_FIRST = 24  # orientations; the others are tried where none of these is clear
_CLEAR = 160  # matches, of 400 at most; wrong orientations of a head had up to 95, right ones 340
_AGAIN = 3  # orientations that are looked at once more
_MATCH = MatchConfig(cycle_tolerance_mm=5.0, rank="similarity", max_matches=400)
_ESTIMATE = EstimateConfig(hypotheses=2000, min_edge_mm=6.0)  # lengths in the shrunk world


@dataclass(frozen=True, eq=False)
class _Candidate:
    """``T_fixed_moving`` in the shrunk world, and how many matches follow it."""

    matrix: Matrix
    n_inliers: int


def coarse_pose(
    fixed: Volume, moving: Volume, model: UniversalModel, config: LandmarkConfig
) -> Matrix | None:
    """Rigid ``T_fixed_moving``, 4x4, RAS mm, to within several mm; None where nothing was found.

    Raises:
        InputError: an image is constant.
    """
    generator = torch.Generator().manual_seed(0)  # a search, whose answer hardly depends on it
    factor = max(1.0, min(_edge_mm(fixed), _edge_mm(moving)) / config.coarse_edge)
    fixed, moving = (_shrunk(volume, factor) for volume in (fixed, moving))
    dense = places(model.embed(fixed), config)
    if not len(dense):  # an image of a few mm
        return None
    known = thinned(dense, _SPARSE_MM)

    def seen_from(turn: Matrix) -> list[_Candidate]:
        own = places(model.embed(moving.moved(turn)), config)
        found = _located(known, own, generator)
        return [] if found is None else [_Candidate(found.matrix @ turn, found.n_inliers)]

    turns = orientations()[: config.orientations]
    tried: list[_Candidate] = []
    for part in (turns[:_FIRST], turns[_FIRST:]):
        found: list[_Candidate] = []
        for turn in part:
            found += seen_from(transform.about(moving.centre_ras, turn))
        found.sort(key=lambda candidate: candidate.n_inliers, reverse=True)
        for candidate in found[:_AGAIN]:
            found += seen_from(candidate.matrix)
        tried += found
        if any(candidate.n_inliers >= _CLEAR for candidate in tried):
            break
    if not tried:
        return None
    best = max(tried, key=lambda candidate: candidate.n_inliers).matrix.copy()
    best[:3, 3] *= factor
    return best


def _located(known: Described, own: Described, generator: torch.Generator) -> _Candidate | None:
    few = torch.randperm(len(own), generator=generator)[:_POINTS]
    points, descriptors = own.points[few], own.descriptors[few]
    matches = match(known.descriptors, descriptors, known.points, points, _MATCH)
    a, b = matches.indices.T
    result = estimate_rigid(known.points[a], points[b], _ESTIMATE, generator, matches.scores)
    return None if result.matrix is None else _Candidate(result.matrix, result.n_inliers)


def _edge_mm(volume: Volume) -> float:
    """Of the cube that holds as much as the volume shows."""
    return float(shown(volume).sum() * abs(np.linalg.det(volume.ijk_to_ras))) ** (1 / 3)


def _shrunk(volume: Volume, factor: float) -> Volume:
    """Fewer samples, each as large as the network expects: all lengths divided by ``factor``."""
    small = rescaled(windowed(volume)).resample(Grid.along(volume, factor))
    return small.moved(np.diag([1 / factor] * 3 + [1.0]))
