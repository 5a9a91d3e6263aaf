"""The pictures of one registration, as the commands leave them in a folder."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..registration.result import Registration
from .matched import matches, matches_3d
from .places import keypoints
from .registered import checkerboard, overlay


def of_registration(
    result: Registration, fixed: Volume, moving: Volume, before: Matrix | None = None
) -> dict[str, Figure]:
    """Pictures by file name; without a transform there is no before and after.

    Args:
        result: what registering ``moving`` to ``fixed`` gave, accepted or not.
        fixed, moving: MRI and iUS.
        before: ``T_fixed_moving``, 4x4, RAS mm, before registration; where the files put the iUS
            when missing.
    """
    pair, matrix = (fixed, moving), result.matrix
    points = (result.fixed.points, result.moving.points)
    matched = result.drawn_points()
    drawn = {
        "matches.png": matches(*pair, matrix, *matched),
        "matches_3d.png": matches_3d(*pair, matrix, *matched),
        "keypoints.png": keypoints(*pair, matrix, *points),
    }
    if matrix is not None:
        drawn["overlay.png"] = overlay(*pair, matrix, before)
        drawn["checkerboard.png"] = checkerboard(*pair, matrix, before)
    return drawn
