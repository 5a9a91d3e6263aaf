"""Registration of two images by their universal embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ..config import LandmarkConfig, Transform
from ..estimation import RigidResult, estimate_rigid
from ..estimation.matching import Prior, match
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..models.described import Described
from ..models.universal import UniversalModel
from .orientation_search import coarse_pose
from .places import places, thinned
from .pose import SCORE_LEAST
from .structure import confirmed

SPARSE_MM = 4.0  # between the fixed image's places in the first pass, which searches everywhere
# Of the matches. Of a validation head turned by up to 25 degrees at least 0.57 follow the
# estimate, of one turned by 40 degrees or upside down at most 0.03.
CLEAR_SHARE = 0.3


def register_embedded(
    fixed: Volume,
    moving: Volume,
    model: UniversalModel | None = None,
    *,
    transform: Transform = "rigid",
    config: LandmarkConfig | None = None,
    seed: int = 0,
) -> RigidResult:
    """Register two images of one patient, of different contrast and field of view, or of two.

    No start is needed. Where few matches follow the first estimate, or the images do not show the
    same structure there, all orientations are tried on a coarse view, and the estimate that more
    matches follow is taken.

    Args:
        fixed, moving: images of any grid.
        model: the bundled one when missing.
        transform: what to estimate.
        config: weights of the heads, matching and estimation.
        seed: of everything random.

    Returns:
        ``T_fixed_moving``, or the reason why there is none.

    Raises:
        InputError: an image is constant.
    """
    model, config = model or UniversalModel.load(), config or LandmarkConfig()
    search = _Passes(fixed, moving, model, config, seed)
    kind: Transform = transform if config.passes == 1 else "rigid"
    first = search.everywhere(np.eye(4), kind)
    if config.orientations and not search.clear(first):
        laid = coarse_pose(fixed, moving, model, config)
        if laid is not None:
            first = max(first, search.everywhere(laid, kind), key=lambda one: one.support)
    best = first.result
    for step in range(1, config.passes):
        if best.matrix is None:
            break
        last = step == config.passes - 1
        result = search.near(best.matrix, transform if last else "rigid")
        if result.matrix is None:
            break
        best = result
    return best


class _Estimate(NamedTuple):
    """A result, and the mean cosine of the matches that follow it."""

    result: RigidResult
    similarity: float

    @property
    def support(self) -> float:
        return self.similarity * self.result.n_inliers


class _Passes:
    """One moving image held against one fixed image, as often as it is laid anew."""

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        model: UniversalModel,
        config: LandmarkConfig,
        seed: int,
    ) -> None:
        self.fixed, self.moving, self.model, self.config = fixed, moving, model, config
        self.places = places(model.embed(fixed), config)
        self.generator = torch.Generator().manual_seed(seed)

    def everywhere(self, laid: Matrix, transform: Transform) -> _Estimate:
        """Against a part of the places in all of the fixed image."""
        return self._estimated(thinned(self.places, SPARSE_MM), laid, transform, None)

    def clear(self, estimate: _Estimate) -> bool:
        """Whether no other orientation needs to be tried."""
        result = estimate.result
        if result.matrix is None or estimate.similarity < SCORE_LEAST:
            return False
        enough = result.n_inliers >= CLEAR_SHARE * len(result.inliers)
        return enough and confirmed(self.fixed, self.moving, result.matrix)

    def near(self, laid: Matrix, transform: Transform) -> RigidResult:
        """Against all places near to where the moving image was laid."""
        prior = Prior(np.eye(4), self.config.capture_radius_mm)
        return self._estimated(self.places, laid, transform, prior).result

    def _estimated(
        self, table: Described, laid: Matrix, transform: Transform, prior: Prior | None
    ) -> _Estimate:
        """``T_fixed_moving`` from the moving image embedded as ``laid`` lays it."""
        config = self.config
        described = places(self.model.embed(self.moving.moved(laid)), config)
        few = torch.randperm(len(described), generator=self.generator)[: config.moving_points]
        points, own = described.points[few], described.descriptors[few]
        matches = match(table.descriptors, own, table.points, points, config.match, prior)
        a, b = matches.indices.T
        estimate = replace(config.estimate, transform=transform)
        result = estimate_rigid(
            table.points[a], points[b], estimate, self.generator, matches.scores
        )
        if result.matrix is None:
            return _Estimate(result, 0.0)
        similarity = float(matches.scores[result.inliers].mean())
        return _Estimate(replace(result, matrix=result.matrix @ laid), similarity)
