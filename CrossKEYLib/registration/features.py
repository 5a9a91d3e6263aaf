"""Dense features in a registration: a gate for its matches, and a refinement.

The universal embedding (`models/universal.py`) knows roughly where in the head a point lies, which
a small patch does not show. Matches that contradict it can be left out. Near the right transform,
the fine features of either network can be aligned directly (`estimation/feature_metric.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..config import FeatureMetricConfig, Refinement, RegisterConfig
from ..descriptors.dense import DenseEncoder, FeatureMap
from ..descriptors.mind import self_similarity
from ..descriptors.uae import Embedding
from ..errors import InputError
from ..estimation import FeatureFit
from ..estimation.feature_pair import FeaturePair, Features, aligned
from ..estimation.joint_refinement import refine_jointly
from ..estimation.matching import Matches
from ..geometry import transform
from ..geometry.intensity import rescaled
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume
from ..keypoints.sampling import interior_points
from ..models.described import Described
from ..models.patient import Model
from ..models.universal import UniversalModel
from .candidate import Pair

_LEARNED = FeatureMetricConfig()
# Blurred self-similarities show the amount of texture, but not the borders of tissue.
_SHARP = FeatureMetricConfig(levels_mm=(0.0,), iterations=8)
_NOT_DENSE = "refine 'crosskey' needs a dense encoder, this model describes patches"
_REFERENCE = 2000  # points of the MRI with which a match is compared


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Those of the registration's own encoder; ``mri`` is scaled to [0, 1]."""

    encoder: DenseEncoder
    mri: Volume
    settings: FeatureMetricConfig = _LEARNED

    def fixed_map(self, places: torch.Tensor) -> FeatureMap:
        return self.encoder.map_around(self.mri, places, "mri")

    def moving_map(self, laid: Volume, places: torch.Tensor) -> FeatureMap:
        return self.encoder.map_around(laid, places, "ius")

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        return salient


@dataclass(frozen=True, eq=False)
class SelfSimilarities:
    """MIND-SSC, which needs no training. A single voxel says little, so many are compared."""

    mri: Volume
    spacing_mm: float = 1.0
    margin_mm: float = 8.0  # around the MRI's points: the largest motion of a fit
    border_mm: float = 3.0  # around those of the iUS: the reach of a patch
    settings: FeatureMetricConfig = _SHARP

    def fixed_map(self, places: torch.Tensor) -> FeatureMap:
        grid = Grid.around(places.cpu().numpy(), self.spacing_mm, self.margin_mm)
        return self._on(self.mri, grid)

    def moving_map(self, laid: Volume, places: torch.Tensor) -> FeatureMap:
        return self._on(laid, Grid.around(places.cpu().numpy(), self.spacing_mm, self.border_mm))

    def _on(self, volume: Volume, grid: Grid) -> FeatureMap:
        return FeatureMap(self_similarity(volume.resample(grid).array), grid.ijk_to_ras)

    def samples(self, ius: Volume, salient: torch.Tensor) -> torch.Tensor:
        return interior_points(ius)  # nearer to the rim, patches would include it


@dataclass(frozen=True, eq=False)
class EmbeddingFeatures:
    """The universal embedding of one MRI."""

    model: UniversalModel
    mri: Embedding
    settings: FeatureMetricConfig = _LEARNED

    @classmethod
    def of(cls, model: UniversalModel, mri: Volume) -> EmbeddingFeatures:
        return cls(model, model.embed(mri))

    def fixed_map(self, places: torch.Tensor) -> FeatureMap:
        return self.mri.fine_map()

    def moving_map(self, laid: Volume, places: torch.Tensor) -> FeatureMap:
        return self.model.embed(laid).fine_map()

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
        """The matches whose ends are similar to the coarse head.

        Args:
            matches: rows (fixed, moving).
            fixed: described points of the MRI.
            moving: described points of the iUS.
            ius: gamma-normalised.
            rotation: 3x3 that orients it approximately as the MRI.
            share: of the MRI that may be more similar to the point of the iUS than its match is. Of
                wrong matches about this share passes.
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
    """Whether a stage needs the universal embedding."""
    return config.refine == "uae" or config.gate_share < 1


def check_settings(config: RegisterConfig, model: Model) -> None:
    """Refuse settings that the model does not support.

    Raises:
        InputError: dense features of an encoder that has none.
    """
    if config.refine == "crosskey" and not isinstance(model.encoder, DenseEncoder):
        raise InputError(_NOT_DENSE)


def features_of(
    kind: Refinement, mri: Volume, model: Model, embedding: EmbeddingFeatures | None
) -> Features:
    """The features that `RegisterConfig.refine` names.

    Raises:
        InputError: "uae" without an embedding, or "crosskey" with a patch network.
    """
    if kind == "uae":
        if embedding is None:
            raise InputError("refine 'uae' needs the universal embedding; give one")
        return embedding
    if kind in ("mind", "mind+lc2"):
        return SelfSimilarities(mri)
    if not isinstance(model.encoder, DenseEncoder):
        raise InputError(_NOT_DENSE)
    return PatchFeatures(model.encoder, rescaled(mri))


def refined_by(
    kind: Refinement, features: Features, pair: Pair, matrix: Matrix
) -> tuple[Matrix, tuple[FeaturePair, FeatureFit] | None]:
    """Improve ``T_fixed_moving`` (4x4, RAS mm) by these features of the MRI.

    Args:
        kind: what `RegisterConfig.refine` names, other than "none".
        features: of that kind.
        pair: both images.
        matrix: where the search ended.

    Returns:
        The transform, or ``matrix`` where none is better; and the self-similarities of both images
        with their fit, if they were computed.
    """
    seen, fit = aligned(features, pair.ius, pair.points, matrix)
    mri = pair.target.mri
    better = refine_jointly(mri, pair.ius, seen, fit.matrix) if kind == "mind+lc2" else fit.matrix
    return better, (seen, fit) if isinstance(features, SelfSimilarities) else None
