"""Dense features of both images around one transform, and their alignment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ..config import FeatureMetricConfig
from ..descriptors.dense import FeatureMap
from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from . import FeatureFit, refine_features

_REPEATS = 3  # descriptions of the iUS after the first, at most
_SETTLED_MM = 0.1  # a fit that moves it less has converged


class Features(Protocol):
    """Dense features of one MRI, and of an iUS that a transform has moved onto it.

    Attributes:
        settings: that suit them.
    """

    @property
    def settings(self) -> FeatureMetricConfig: ...

    def fixed_map(self, places: torch.Tensor) -> FeatureMap:
        """Of the MRI, around ``places [N, 3]`` (RAS mm) and as far as a fit may move them."""
        ...

    def moving_map(self, laid: Volume, places: torch.Tensor) -> FeatureMap:
        """Of a gamma-normalised iUS ``laid`` in the MRI's world, around its ``places [N, 3]`` (RAS
        mm)."""
        ...

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        """Points ``[M, 3]`` (RAS mm) of the iUS at which features are compared: its salient points
        ``[N, 3]``, or others that suit these features."""
        ...


@dataclass(frozen=True, eq=False)
class FeaturePair:
    """Dense features of both images, described under one transform; they are valid for every
    transform within some mm and degrees of it.

    Attributes:
        fixed, moving: maps, each in its image's world.
        points: ``[N, 3]`` RAS mm in the iUS, at which they are compared.
        settings: that suit these features.
    """

    fixed: FeatureMap
    moving: FeatureMap
    points: torch.Tensor
    settings: FeatureMetricConfig

    @classmethod
    def of(
        cls, features: Features, ius: Volume, salient: torch.Tensor, matrix: Matrix
    ) -> FeaturePair:
        """Describe both images in one orientation, the gamma-normalised iUS moved by
        ``T_fixed_moving``; ``salient [N, 3]`` RAS mm lie in its field of view."""
        points = features.samples(ius, salient)
        places = transform.apply(matrix, points)
        moving = _moving_map(features, ius, places, matrix)
        return cls(features.fixed_map(places), moving, points, features.settings)

    def laid_anew(self, features: Features, ius: Volume, matrix: Matrix) -> FeaturePair:
        """The same with the iUS described under another ``T_fixed_moving``, some mm away."""
        places = transform.apply(matrix, self.points)
        return replace(self, moving=_moving_map(features, ius, places, matrix))

    def refined(self, matrix: Matrix, proven: FeatureFit | None = None) -> FeatureFit:
        """Improve ``T_fixed_moving`` (4x4, RAS mm); ``proven`` as in `refine_features`."""
        return refine_features(self.fixed, self.moving, self.points, matrix, self.settings, proven)


def _moving_map(
    features: Features, ius: Volume, places: torch.Tensor, matrix: Matrix
) -> FeatureMap:
    laid = features.moving_map(ius.moved(matrix), places)
    return FeatureMap(laid.array, transform.invert(matrix) @ laid.ijk_to_ras)


def aligned(
    features: Features, ius: Volume, salient: torch.Tensor, matrix: Matrix
) -> tuple[FeaturePair, FeatureFit]:
    """Align features, starting at ``T_fixed_moving``. The iUS is described again after each fit
    until the fit converges, because features of a rotated image differ from rotated features.

    Args:
        features: of the MRI.
        ius: gamma-normalised.
        salient: ``[N, 3]`` RAS mm in its field of view.
        matrix: 4x4, RAS mm, within some mm and degrees.

    Returns:
        The features of the last description, and the fit with the gain of the first one.
    """
    seen = FeaturePair.of(features, ius, salient, matrix)
    fit = seen.refined(matrix)
    if fit:
        for _ in range(_REPEATS):
            laid = fit.matrix
            seen = seen.laid_anew(features, ius, laid)
            fit = seen.refined(laid, fit)
            if transform.rms_displacement_mm(seen.points, laid, fit.matrix) < _SETTLED_MM:
                break
    return seen, fit
