"""Settings of registration: keypoints, matching, estimation, refinement, search and trust."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from .values import Count, NotNegative, Positive, PositiveShare, Range, Settings, Share

Transform = Literal["rigid", "affine"]
MatchMethod = Literal["nearest", "mutual", "ratio", "cycle"]
Refinement = Literal["none", "crosskey", "uae", "mind", "mind+lc2"]


@dataclass(frozen=True)
class SiftConfig(Settings):
    """SIFT3D (Rister et al. 2017), values of the CrossKEY paper (arXiv 2507.18551)."""

    peak_threshold: Share = 0.1  # share of the largest DoG response
    corner_threshold: Share = 0.4  # smallest |cos| between gradient and structure-tensor axis
    max_eigenvalue_ratio: Share = 0.9  # of neighbouring axes; above, orientation is arbitrary
    levels_per_octave: Count = 3
    sigma_n_voxels: NotNegative = 1.15  # blur assumed in the input
    sigma0_voxels: Positive = 1.6  # blur of the first level
    octaves: Count = 3
    max_keypoints: Count | None = None  # strongest kept


@dataclass(frozen=True)
class MatchConfig(Settings):
    """How descriptors are paired."""

    method: MatchMethod = "cycle"  # "ratio" is mutual and ratio test
    ratio: PositiveShare = 0.8  # distance to best over distance to second best
    second_best_radius_mm: NotNegative = 5.0  # neighbours of the best are not rivals
    cycle_tolerance_mm: NotNegative = 4.0  # between a moving point and the end of its cycle
    rank: Literal["ratio", "similarity"] = "ratio"  # what orders the matches
    max_matches: Count = 3000  # best ones kept


@dataclass(frozen=True)
class ConsensusConfig(Settings):
    """Which matches support each other."""

    edge_tolerance_mm: Positive = 4.0  # a rigid motion keeps edge lengths to within noise
    reach_mm: Positive = 30.0  # Gaussian sigma of distances over which matches support each other
    nearest_mm: NotNegative = 1.5  # nearer ones are the same structure
    iterations: Count = 3
    share: PositiveShare = 1 / 3  # of the matches that is kept
    fewest: Count = 300  # number that is kept at least


@dataclass(frozen=True)
class EstimateConfig(Settings):
    """Global rigid estimation."""

    inlier_threshold_mm: Positive = 4.0
    hypotheses: Count = 20000
    min_edge_mm: NotNegative = 10.0  # shorter triangles fix the rotation badly
    edge_tolerance_mm: NotNegative = 4.0  # a rigid motion keeps edge lengths to within noise
    cluster_radius_mm: Positive = 5.0  # matches nearer than this have common errors
    refinement_iterations: Count = 30
    transform: Transform = "rigid"


@dataclass(frozen=True)
class FeatureMetricConfig(Settings):
    """Refinement by dense features."""

    levels_mm: tuple[NotNegative, ...] = (4.0, 2.0, 0.0)  # blur of both maps, one after another
    iterations: Count = 15  # per level, at most
    block_mm: Positive = 8.0  # edge of the cubes, every other of which is held out
    significance: NotNegative = 0.0  # standard errors by which the agreement there must rise
    reach_mm: Positive = 8.0  # a refinement that moves the points farther is not taken


@dataclass(frozen=True)
class JointConfig(Settings):
    """Refinement by the sum of MIND-SSC and LC2."""

    lc2_weight: NotNegative = 0.3  # of LC2 against the mean robust residual of MIND-SSC
    patches: Count = 1500
    patch_radius_mm: Positive = 2.5
    patch_points: Count = 24
    ridge: Positive = 0.01  # of the fit in a patch, in variances of the MRI
    spacing_mm: Positive = 0.75  # at which both images are read
    smooth_mm: NotNegative = 0.5  # Gaussian sigma, of the iUS, so that its speckle does not alias
    block_mm: Positive = 8.0  # edge of the cubes, which are fitted in two halves
    agreement_mm: Positive = 3.0  # largest distance of the two fits; beyond it none is taken
    reach_mm: Positive = 4.0  # a refinement that moves the points farther is not taken


@dataclass(frozen=True)
class TrustConfig(Settings):
    """How the figures of the trust are computed, and the model that judges them."""

    model: str | None = None  # file of `confidence.TrustModel`; the bundled one when missing
    rival_searches: Count = 1  # searches for another position that fits as well
    chance_repeats: Count = 3
    splits: Count = 3  # pairs of disjoint halves
    hypotheses: Count = 3000  # of each re-estimation


@dataclass(frozen=True)
class KeypointConfig(Settings):
    """Keypoints that a patch network describes, and how they are paired, as published.

    Patches lie along the RAS axes, so SIFT3D's tests of a keypoint's own orientation do not apply.
    """

    spacing_mm: Positive = 0.5  # at 1 mm an ultrasound of 5 cm shows some forty keypoints
    sift: SiftConfig = SiftConfig(
        peak_threshold=0.02, corner_threshold=0.0, max_eigenvalue_ratio=1.0, max_keypoints=2000
    )
    match: MatchConfig = MatchConfig(method="ratio")


@dataclass(frozen=True)
class SearchConfig(Settings):
    """Search over all orientations, if the given one is not clearly right."""

    # Of 48: how many are tried first, and how many where none leads.
    orientations: tuple[Annotated[int, Range(1, 48)], ...] = (24, 48)
    shrink: Positive = 1.5  # of both images, so that the encoder sees more of them at once
    block_voxels: tuple[Count, ...] = (64, 80)  # edge of what is described of the iUS
    block_share: Share = 0.5  # least share of the points in it, or the next larger one is taken
    points: Count = 400  # in it
    hypotheses: Count = 1500  # per orientation
    keep: Count = 5  # poses that are described again
    compared: Count = 2  # poses at most that are compared with all of the iUS
    thorough: bool = False  # assess every pose that leads, not only the best


@dataclass(frozen=True)
class RegisterConfig(Settings):
    """The whole pipeline."""

    match: MatchConfig = MatchConfig()
    consensus: ConsensusConfig = ConsensusConfig()
    keypoints: KeypointConfig = KeypointConfig()  # of models that describe patches
    estimate: EstimateConfig = EstimateConfig()
    trust: TrustConfig = TrustConfig()
    moving_points: Count = 8000
    reported_matches: Count = 500  # best ones, of those that were used; as many are drawn
    capture_radius_mm: Positive = 40.0  # around a given start
    coarse_points_fixed: Count = 40000  # of the MRI at most, in the pass that finds the orientation
    coarse_points_moving: Count = 2000  # of the iUS, likewise
    search_rotations: bool = True  # try all orientations when the given one is not trusted
    search: SearchConfig = SearchConfig()
    gate_share: PositiveShare = 1.0  # of the MRI that may look more like a match; 1: no gate
    refine: Refinement = "mind+lc2"  # features that improve the transform

    def estimating(self, transform: Transform) -> RegisterConfig:
        """The same for another kind of transform."""
        return replace(self, estimate=replace(self.estimate, transform=transform))
