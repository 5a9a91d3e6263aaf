"""Rotations that lie close enough together for a search over all orientations."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

_INTO_GAPS = (2.09, 0.02, 1.0)  # rotation vector; found by minimising the largest gap


def orientations() -> np.ndarray:
    """48 rotations ``[48, 3, 3]``, of which the first is none.

    The first 24 are those of an octahedron: any other rotation lies within 63 degrees of one of
    them. The others are the same turned into the gaps between them: within 56 degrees of one of all
    48 lies any rotation, within 49 degrees nineteen of twenty.
    """
    group = Rotation.create_group("O")
    first = group.as_matrix()[np.argsort(group.magnitude(), kind="stable")]
    return np.concatenate([first, first @ Rotation.from_rotvec(_INTO_GAPS).as_matrix()])
