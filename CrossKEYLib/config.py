"""Settings of every stage, one frozen dataclass each; unknown keys are refused, never ignored.

Units are in the names. The same classes serve the command line, the panel and the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class SiftConfig:
    """SIFT3D (Rister et al. 2017), values of the CrossKEY paper (arXiv 2507.18551)."""

    peak_threshold: float = 0.1  # share of the largest DoG response
    corner_threshold: float = 0.4  # smallest |cos| between gradient and structure-tensor axis
    max_eigenvalue_ratio: float = 0.9  # of neighbouring axes; above, orientation is arbitrary
    levels_per_octave: int = 3
    sigma_n_voxels: float = 1.15  # blur assumed in the input
    sigma0_voxels: float = 1.6  # blur of the first level
    octaves: int = 3
    max_keypoints: int | None = None  # strongest kept


@dataclass(frozen=True)
class ResNetConfig:
    """Patch descriptor; the defaults are the network of the CrossKEY paper (arXiv 2507.18551)."""

    width: int = 64  # channels of the first stage; the last has eight times as many
    dims: int = 512  # length of a descriptor
    patch_size: int = 32  # samples a side
    patch_spacing_mm: float = 1.0
    patch_axes: str = "SAR"  # directions in which patch indices k, j, i grow

    @classmethod
    def narrow(cls) -> ResNetConfig:
        """A sixteenth of the arithmetic, for processors without an accelerator."""
        return cls(width=16, dims=128)


@dataclass(frozen=True)
class MatchConfig:
    """How descriptors are paired."""

    method: str = "cycle"  # "nearest", "mutual", "ratio" (mutual + ratio) or "cycle"
    ratio: float = 0.8  # distance to best over distance to second best
    second_best_radius_mm: float = 5.0  # neighbours of the best are not rivals
    cycle_tolerance_mm: float = 4.0  # a match may come back this far from where it began
    rank: str = "ratio"  # of distances to the best and its rival, or by "similarity" alone
    max_matches: int = 3000  # best ones kept


@dataclass(frozen=True)
class ConsensusConfig:
    """Which matches support each other."""

    edge_tolerance_mm: float = 4.0  # a rigid motion keeps edge lengths to within noise
    reach_mm: float = 30.0  # Gaussian sigma of the distance over which matches support each other
    nearest_mm: float = 1.5  # nearer ones are the same structure
    iterations: int = 3
    share: float = 1 / 3  # of the matches, which is kept
    fewest: int = 300  # that are kept, where there are so many


@dataclass(frozen=True)
class EstimateConfig:
    """Global rigid estimation."""

    inlier_threshold_mm: float = 4.0
    hypotheses: int = 20000
    min_edge_mm: float = 10.0  # shorter triangles fix the rotation badly
    edge_tolerance_mm: float = 4.0  # a rigid motion keeps edge lengths to within noise
    cluster_radius_mm: float = 5.0  # matches this near to each other err together
    refinement_iterations: int = 30
    transform: str = "rigid"  # or "affine"


@dataclass(frozen=True)
class FeatureMetricConfig:
    """Refinement by dense features."""

    levels_mm: tuple[float, ...] = (4.0, 2.0, 0.0)  # Gaussian blur of both maps, one after another
    iterations: int = 15  # per level, at most
    block_mm: float = 8.0  # edge of the cubes, every other of which is left out to judge the fit
    significance: float = 0.0  # standard errors by which those must agree better
    reach_mm: float = 8.0  # a refinement that moves the points farther is no refinement


@dataclass(frozen=True)
class TrustConfig:
    """How evidence for a result is gathered, and the model that judges it."""

    model: str | None = None  # file of `confidence.TrustModel`; the bundled one when missing
    rival_searches: int = 1  # for another place that fits as well
    chance_repeats: int = 3
    splits: int = 3  # pairs of disjoint halves
    hypotheses: int = 3000  # of each re-estimation


@dataclass(frozen=True)
class TrainConfig:
    """Training of the dense encoder on synthetic pairs. Give ``steps``, or ``minutes``."""

    minutes: float | None = None
    steps: int | None = None  # wins over minutes; makes a run reproducible on any machine
    learning_rate: float = 7.5e-4  # with twice that, untrained weights make all places look alike
    weight_decay: float = 1e-2
    warmup_steps: int = 50
    max_angle_deg: float = 35.0  # between the crops, per axis
    curriculum_share: float = 0.6  # of the run, until that angle is reached
    first_share: float = 0.05  # of that angle, at the start
    mri_share: float = 0.0  # of the run, at first, in which the iUS shows the MRI in other tones
    crops: int = 2  # per synthetic volume
    points: int = 1024  # per crop
    crop_mm: float = 64.0  # edge of a crop
    temperature: float = 0.07
    exclusion_mm: float = 4.0  # nearer places are no negatives
    position_weight: float = 0.3  # of the loss that tells a place from those around it
    position_nearest_mm: float = 1.5  # distance of these
    position_farthest_mm: float = 6.0
    position_places: int = 24  # so many around each point
    evaluations: int = 20  # on held-out styles, over the run
    held_out: int = 12  # pairs
    frozen_statistics: bool = False  # of batch normalisation: a few views must not replace them
    patience: int = 6  # evaluations without progress, after the curriculum, that end the run
    save_seconds: float = 30.0


@dataclass(frozen=True)
class KeypointConfig:
    """Keypoints that a patch network describes, and how they are paired, as published.

    Patches lie along the RAS axes, so SIFT3D's tests of a keypoint's own orientation do not apply.
    """

    spacing_mm: float = 0.5  # at 1 mm an ultrasound of 5 cm shows some forty keypoints
    sift: SiftConfig = SiftConfig(
        peak_threshold=0.02, corner_threshold=0.0, max_eigenvalue_ratio=1.0, max_keypoints=2000
    )
    match: MatchConfig = MatchConfig(method="ratio")


@dataclass(frozen=True)
class SearchConfig:
    """Trying all orientations, when the given one is not clearly right."""

    orientations: tuple[int, ...] = (24, 48)  # of 48: so many first, more where none leads
    shrink: float = 1.5  # of both images, so that the encoder sees more of them at once
    block_voxels: tuple[int, ...] = (64, 80)  # edge of what is described of the iUS
    block_share: float = 0.5  # of the iUS's points in it, or the next larger one is taken
    points: int = 400  # in it
    hypotheses: int = 1500  # per orientation
    keep: int = 5  # poses that are looked at again
    compared: int = 2  # of them at most, with all of the iUS
    thorough: bool = False  # assess every pose that leads, not only the best


@dataclass(frozen=True)
class RegisterConfig:
    """The whole pipeline."""

    match: MatchConfig = MatchConfig()
    consensus: ConsensusConfig = ConsensusConfig()
    keypoints: KeypointConfig = KeypointConfig()  # of models that describe patches
    estimate: EstimateConfig = EstimateConfig()
    trust: TrustConfig = TrustConfig()
    moving_keypoints: int = 8000
    reported_matches: int = 500  # best ones, of those that were used, in the result
    capture_radius_mm: float = 40.0  # around a given start
    coarse_points_fixed: int = 40000  # of the MRI at most, in the pass that finds the orientation
    coarse_points_moving: int = 2000  # of the iUS, likewise
    search_rotations: bool = True  # try all orientations when the given one is not trusted
    search: SearchConfig = SearchConfig()
    gate_share: float = 1.0  # of the MRI that may look more like a match, coarsely; 1: no gate
    refine: str = "mind+lc2"  # or by "mind" alone, by "crosskey" or "uae" features; or "none"

    def estimating(self, transform: str) -> RegisterConfig:
        """The same for "rigid" or "affine"."""
        return replace(self, estimate=replace(self.estimate, transform=transform))


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """Build a config dataclass from a mapping.

    Raises:
        InputError: a key that the dataclass does not have.
    """
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known keys: {sorted(known)}")
    return cls(**values)
