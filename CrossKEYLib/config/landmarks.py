"""Settings of finding the same point in another image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .registration import EstimateConfig, MatchConfig
from .values import Count, CountOrZero, NotNegative, Positive, Range, Settings, Share

LandmarkMethod = Literal["fixed_point", "nearest"]


@dataclass(frozen=True)
class FitConfig(Settings):
    """Iteratively reweighted least squares (Geman-McClure weights with shrinking reach)."""

    inlier_mm: Positive = 3.0  # residual at which a pair counts a quarter
    stiffness_mm2: NotNegative = 60.0  # against any but rigid motion
    iterations: Count = 12


@dataclass(frozen=True)
class FixedPointConfig(Settings):
    """How pairs around a query are found and combined."""

    seed_radius_mm: Positive = 12.0
    seed_spacing_mm: Positive = 6.0
    iterations: Count = 5  # walks A -> B -> A, at most
    min_similarity: Share = 0.3  # of a pair that counts
    reach_mm: Positive = 24.0  # pairs farther from the query do not count
    fewest: CountOrZero = 5  # pairs; below, those of the whole image tell
    fit: FitConfig = FitConfig()
    survey_mm: Positive = 14.0  # between seeds over the whole image, for its coarse position
    survey_reach_mm: Positive = 50.0  # as reach_mm, where only they tell
    gate_mm: Positive = 30.0  # pairs farther off the coarse position do not count


@dataclass(frozen=True)
class LandmarkConfig(Settings):
    """Similarity, search and registration by the universal embedding."""

    fine_weight: NotNegative = 1.0  # of the heads' cosines in the similarity, which is their mean
    coarse_weight: NotNegative = 1.0
    semantic_weight: NotNegative = 0.5
    fixed_point: FixedPointConfig = FixedPointConfig()
    moving_points: Count = 3000  # of the moving image, for registration
    passes: Count = 2  # the last ones embed the second image as the estimate before lays it
    capture_radius_mm: Positive = 15.0  # around that estimate
    # Tried on a coarse view where the images do not tell their pose as they lie; 0 for none.
    orientations: Annotated[int, Range(0, 48)] = 48
    coarse_edge: Positive = 52.0  # mm, of the cube that holds as much as the image in that view
    # An embedding changes slowly from place to place: none leads by much, and many are needed.
    match: MatchConfig = field(
        default_factory=lambda: MatchConfig(
            cycle_tolerance_mm=5.0, rank="similarity", max_matches=1500
        )
    )
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
