"""Points that correspond -> the transform between their images."""

from __future__ import annotations

from .feature_metric import FeatureFit, refine_features
from .field import DescriptorField, Evidence
from .kabsch import affine, kabsch
from .locate import locate
from .ransac import estimate_rigid
from .result import RigidResult

__all__ = [
    "DescriptorField",
    "Evidence",
    "FeatureFit",
    "RigidResult",
    "affine",
    "estimate_rigid",
    "kabsch",
    "locate",
    "refine_features",
]
