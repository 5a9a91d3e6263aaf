"""One candidate of a registration: descriptors, matches, and the transform estimated from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from ..estimation import DescriptorGrid, DescriptorScore, FeatureFit, RigidResult
from ..estimation.feature_pair import FeaturePair
from ..estimation.matching import Matches, Prior
from ..estimation.ransac import result_of
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..models.described import Described


@dataclass(frozen=True, eq=False)
class Target:
    """The MRI, its described points, and a grid to look them up by position."""

    mri: Volume
    described: Described
    grid: DescriptorGrid

    @classmethod
    def of(cls, mri: Volume, described: Described, spacing_mm: float = 2.0) -> Target:
        grid = DescriptorGrid(described.points, described.descriptors, spacing_mm)
        return cls(mri, described, grid)

    def thinned(self, most: int) -> Target:
        """Every other point along each axis, repeated until at most this many are left."""
        if len(self.described) <= most:
            return self
        kept = (self.grid.cells(self.described.points) % 2 == 0).all(1)
        few = Described(self.described.points[kept], self.described.descriptors[kept])
        return Target.of(self.mri, few, 2 * self.grid.spacing_mm).thinned(most)


@dataclass(frozen=True, eq=False)
class Pair:
    """What is to be registered.

    Attributes:
        target: the MRI.
        raw: iUS with its intensities as given, zero outside its field of view.
        ius: the same, gamma-normalised; this image is described.
        points: ``[N, 3]`` RAS mm, of the iUS, ordered so that the first ones cover the whole image.
        prior: a start.
    """

    target: Target
    raw: Volume
    ius: Volume
    points: torch.Tensor
    prior: Prior | None

    def thinned(self, most_fixed: int, most_moving: int) -> Pair:
        """The same with fewer points of the MRI and of the iUS."""
        few, some = self.target.thinned(most_fixed), self.points[:most_moving]
        return replace(self, target=few, points=some)


@dataclass(frozen=True, eq=False)
class Candidate:
    """The iUS described in one orientation, its matches with the MRI, and the transform.

    Attributes:
        pair: what was matched.
        rotation: 3x3, ``R_fixed_moving`` in which the iUS was described.
        moving: its described points.
        tentative: matches, rows (fixed, moving), ranked by their descriptors.
        matches: those of them that support each other, best first.
        descriptor_score: scores transforms by all similarities of the two images; None where only
            keypoints were described.
        result: the transform.
        seen: self-similarities of both images, where the refinement made them.
    """

    pair: Pair
    rotation: np.ndarray
    moving: Described
    tentative: Matches
    matches: Matches
    descriptor_score: DescriptorScore | None
    result: RigidResult
    seen: tuple[FeaturePair, FeatureFit] | None = None

    @cached_property
    def score(self) -> float:
        """Descriptor score of the transform, or the number of inliers where there is none; minus
        infinity without a transform."""
        matrix = self.result.matrix
        if matrix is None:
            return -np.inf
        if self.descriptor_score is None:
            return float(self.result.n_inliers)
        return self.descriptor_score.at(matrix)

    def with_matrix(self, matrix: Matrix, threshold_mm: float) -> Candidate:
        """The same with another ``T_fixed_moving``; without a transform where too few matches lie
        within ``threshold_mm``."""
        return replace(self, result=result_of(matrix, *self.ends(self.matches), threshold_mm))

    def ends(self, matches: Matches) -> tuple[torch.Tensor, torch.Tensor]:
        """``[K, 3]`` RAS mm in the MRI, and in the iUS."""
        a, b = matches.indices.T
        return self.pair.target.described.points[a], self.moving.points[b]
