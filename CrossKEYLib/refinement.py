"""What dense features add to a registration: a gate for its matches, and a last refinement.

The universal embedding (`universal.py`) knows roughly where in the head a place lies, which a small
patch does not say: matches that it finds absurd can be left out. And the fine features of either
network can be aligned directly (`estimation/feature_metric.py`) once the images lie nearly right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from . import transform
from .candidates import interior_points
from .config import FeatureMetricConfig, RegisterConfig
from .descriptors.dense import DenseEncoder, FeatureMap
from .descriptors.mind import self_similarity
from .descriptors.uae import Embedding
from .errors import InputError
from .estimation import FeatureFit, refine_features
from .matching import Matches
from .model import Described, Model
from .transform import Matrix
from .universal import UniversalModel
from .volume import Grid, Volume, rescaled

FEATURES = ("none", "crosskey", "uae", "mind")
_LEARNED = FeatureMetricConfig()
# Blurred, self-similarities say where tissue is busy, and no longer where its borders lie.
_SHARP = FeatureMetricConfig(levels_mm=(0.0,), iterations=8)
_REPEATS = 3  # descriptions of the iUS after the first, at most
_SETTLED_MM = 0.1  # a fit that moves it less has settled
_REFERENCE = 2000  # places of the MRI that a match is compared with


class Features(Protocol):
    """Dense features of one MRI, and of an iUS as it is laid over it.

    Attributes:
        settings: that suit them.
    """

    @property
    def settings(self) -> FeatureMetricConfig: ...

    def maps(self, laid: Volume, places: torch.Tensor) -> tuple[FeatureMap, FeatureMap]:
        """Of the MRI, and of a toned iUS ``laid`` in its world, around RAS ``places [N, 3]``."""
        ...

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        """Where features are compared, ``[M, 3]`` RAS mm in the iUS: at its salient points
        ``[N, 3]``, or wherever these features say something."""
        ...


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Those of the registration's own encoder; ``mri`` is scaled to [0, 1]."""

    encoder: DenseEncoder
    mri: Volume
    settings: FeatureMetricConfig = _LEARNED

    def maps(self, laid: Volume, places: torch.Tensor) -> tuple[FeatureMap, FeatureMap]:
        return (
            self.encoder.map_around(self.mri, places, "mri"),
            self.encoder.map_around(laid, places, "ius"),
        )

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        return salient


@dataclass(frozen=True, eq=False)
class SelfSimilarities:
    """MIND-SSC, for which nothing was trained; one number a voxel says little, so many count."""

    mri: Volume
    spacing_mm: float = 1.0
    margin_mm: float = 8.0
    settings: FeatureMetricConfig = _SHARP

    def maps(self, laid: Volume, places: torch.Tensor) -> tuple[FeatureMap, FeatureMap]:
        grid = Grid.around(places.cpu().numpy(), self.spacing_mm, self.margin_mm)
        fixed, moving = (
            FeatureMap(self_similarity(volume.resample(grid).array), grid.ijk_to_ras)
            for volume in (self.mri, laid)
        )
        return fixed, moving

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        return interior_points(ius)  # near the rim the patches would see it


@dataclass(frozen=True, eq=False)
class Companion:
    """The universal embedding of one MRI."""

    model: UniversalModel
    mri: Embedding
    settings: FeatureMetricConfig = _LEARNED

    @classmethod
    def of(cls, model: UniversalModel, mri: Volume) -> Companion:
        return cls(model, model.embed(mri))

    def maps(self, laid: Volume, places: torch.Tensor) -> tuple[FeatureMap, FeatureMap]:
        return self.mri.fine_map(), self.model.embed(laid).fine_map()

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        return salient

    def gated(
        self,
        matches: Matches,
        fixed: Described,
        moving: Described,
        ius: Volume,
        rotation: np.ndarray,
        share: float,
    ) -> Matches:
        """The matches whose ends look alike coarsely.

        Args:
            matches: rows (fixed, moving).
            fixed: described places of the MRI.
            moving: described points of the iUS.
            ius: toned.
            rotation: 3x3 that orients it much as the MRI is.
            share: of the MRI that may look more like the iUS there than the matched place does;
                of wrong matches about this share passes.
        """
        a, b = matches.indices.T
        turn = transform.from_parts(rotation, np.zeros(3))
        laid = self.model.embed(ius.moved(turn))
        wanted = laid.at(transform.apply(turn, moving.points[b]))[1]
        every = max(1, len(fixed) // _REFERENCE)
        elsewhere = wanted @ self.mri.at(fixed.points[::every])[1].T
        own = (wanted * self.mri.at(fixed.points[a])[1]).sum(1, keepdim=True)
        kept = (elsewhere > own).float().mean(1) <= share
        return Matches(matches.indices[kept], matches.scores[kept])


def wants_universal(config: RegisterConfig) -> bool:
    """Whether a stage asks for the universal embedding."""
    return config.refine == "uae" or config.gate_share < 1


def check_settings(config: RegisterConfig, model: Model) -> None:
    """Refuse settings that the model cannot serve.

    Raises:
        InputError: unknown features, or dense ones of an encoder that has none.
    """
    if config.refine not in FEATURES:
        raise InputError(f"refine must be one of {FEATURES}, got {config.refine!r}")
    if config.refine == "crosskey" and not isinstance(model.encoder, DenseEncoder):
        raise InputError("refine 'crosskey' needs a dense encoder, this model describes patches")


def features_of(kind: str, mri: Volume, model: Model, companion: Companion | None) -> Features:
    """The features that `RegisterConfig.refine` names; see `check_settings`."""
    if kind == "uae":
        assert companion is not None
        return companion
    if kind == "mind":
        return SelfSimilarities(mri)
    assert isinstance(model.encoder, DenseEncoder)
    return PatchFeatures(model.encoder, rescaled(mri))


@dataclass(frozen=True, eq=False)
class Compared:
    """Dense features of both images as a transform lays one on the other; they serve every
    transform within some mm and degrees of it.

    Attributes:
        fixed, moving: maps, each in its image's world.
        points: ``[N, 3]`` RAS mm in the iUS, where they are compared.
        settings: that suit these features.
    """

    fixed: FeatureMap
    moving: FeatureMap
    points: torch.Tensor
    settings: FeatureMetricConfig

    @classmethod
    def of(cls, features: Features, ius: Volume, salient: torch.Tensor, matrix: Matrix) -> Compared:
        """Describe a toned iUS as ``T_fixed_moving`` lays it, so that both images are seen in one
        orientation; ``salient [N, 3]`` RAS mm lie in its field of view."""
        points = features.samples(ius, salient)
        fixed, laid = features.maps(ius.moved(matrix), transform.apply(matrix, points))
        moving = FeatureMap(laid.array, transform.invert(matrix) @ laid.ijk_to_ras)
        return cls(fixed, moving, points, features.settings)

    def refined(self, matrix: Matrix, proven: FeatureFit | None = None) -> FeatureFit:
        """Improve ``T_fixed_moving`` (4x4, RAS mm); ``proven`` as in `refine_features`."""
        return refine_features(self.fixed, self.moving, self.points, matrix, self.settings, proven)


def aligned(
    features: Features, ius: Volume, salient: torch.Tensor, matrix: Matrix
) -> tuple[Compared, FeatureFit]:
    """Align features from ``T_fixed_moving`` on, and again as each fit lays the iUS until that
    settles: features of a turned image are not those of the image, turned.

    Args:
        features: of the MRI.
        ius: toned.
        salient: ``[N, 3]`` RAS mm in its field of view.
        matrix: 4x4, RAS mm, within some mm and degrees.

    Returns:
        The features as last seen, and the fit; what it gains is judged in the first.
    """
    seen = Compared.of(features, ius, salient, matrix)
    fit = seen.refined(matrix)
    if fit:
        for _ in range(_REPEATS):
            laid = fit.matrix
            seen = Compared.of(features, ius, salient, laid)
            fit = seen.refined(laid, fit)
            if transform.way_mm(seen.points, laid, fit.matrix) < _SETTLED_MM:
                break
    return seen, fit
