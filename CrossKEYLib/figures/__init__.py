"""Pictures that show a registration and its steps.

All are drawn in the world of the MRI (RAS mm) on axial, coronal and sagittal planes, as a
radiologist sees them: the patient's left is on the right. Each function returns a matplotlib
figure, which `save` writes; no global matplotlib state is touched. The pictures of a benchmark are
in `evaluation.benchmark_figure`.
"""

from __future__ import annotations

from .canvas import PLANES, save
from .matched import matches, matches_3d
from .places import heatmap, keypoints, similarity, slices
from .registered import checkerboard, overlay
from .result import of_registration

__all__ = [
    "PLANES",
    "checkerboard",
    "heatmap",
    "keypoints",
    "matches",
    "matches_3d",
    "of_registration",
    "overlay",
    "save",
    "similarity",
    "slices",
]
