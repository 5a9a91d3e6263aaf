"""Matches and descriptors -> transform: RANSAC proposes, the descriptor score decides."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..config import EstimateConfig
from .descriptor_score import DescriptorScore
from .ransac import affine_from, estimate_rigid, result_of
from .result import RigidResult


def locate(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    config: EstimateConfig,
    generator: torch.Generator,
    scores: torch.Tensor | None = None,
    descriptor_score: DescriptorScore | None = None,
) -> RigidResult:
    """Find ``T_fixed_moving`` from matches; no start is needed.

    Without ``descriptor_score``, the hypothesis with most support by matches is taken. With it, the
    best hypotheses are scored by the descriptors of the whole image, and the best one is refined.

    Args:
        points_fixed, points_moving: ``[K, 3]`` RAS mm, paired row by row.
        config: thresholds, hypotheses, kind of transform.
        generator: source of randomness.
        scores: ``[K]`` of the matches.
        descriptor_score: descriptors of both images.
    """
    if descriptor_score is None:
        return estimate_rigid(points_fixed, points_moving, config, generator, scores)
    rigid = replace(config, transform="rigid")
    found = estimate_rigid(points_fixed, points_moving, rigid, generator, scores, descriptor_score)
    if found.matrix is None:
        return found
    matrix = descriptor_score.refined(found.matrix, generator)
    if config.transform == "affine":
        return affine_from(matrix, points_fixed, points_moving, config)
    return result_of(matrix, points_fixed, points_moving, config.inlier_threshold_mm)
