"""Points that correspond -> the transform between their images."""

from __future__ import annotations

from .kabsch import affine, kabsch
from .ransac import estimate_rigid
from .result import RigidResult

__all__ = ["RigidResult", "affine", "estimate_rigid", "kabsch"]
