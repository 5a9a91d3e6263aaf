"""From corresponding points to the transform between their images."""

from __future__ import annotations

from .descriptor_score import DescriptorGrid, DescriptorScore
from .feature_metric import FeatureFit, refine_features
from .kabsch import affine, kabsch
from .locate import locate
from .ransac import estimate_rigid
from .result import RigidResult

__all__ = [
    "DescriptorGrid",
    "DescriptorScore",
    "FeatureFit",
    "RigidResult",
    "affine",
    "estimate_rigid",
    "kabsch",
    "locate",
    "refine_features",
]
