"""Does the structure of both images agree here better than a few mm away?

This check uses the images alone, and nothing that was learned. Self-similarities (MIND-SSC,
`descriptors/mind.py`) of the same tissue agree best at the true position, and less a few mm away
in any direction. If the ultrasound lies on other tissue, or off its true position, some direction
is as good or better. Matches that share one error cannot produce such a maximum.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ..estimation import FeatureFit
from ..estimation.feature_pair import FeaturePair
from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume

SHIFT_MM = 4.0
NEAR_MM = 2.0  # root mean square over the field of view
_RIM_MM = SHIFT_MM + 1.0
_POINTS = 4000
_FEWEST = 300  # of them that must lie on the MRI
_WAYS = np.array([way for way in itertools.product((-1, 0, 1), repeat=3) if any(way)], float)
_SHIFTS = SHIFT_MM * _WAYS / np.linalg.norm(_WAYS, axis=1, keepdims=True)


def mind_margin(mri: Volume, seen: FeaturePair, fit: FeatureFit, matrix: Matrix) -> float | None:
    """By how much features agree better at a transform than `SHIFT_MM` away.

    If the optimum of the features lies within `NEAR_MM` of the transform, the margin is measured
    there. Refinement accepts that optimum only with evidence, and 0.5 mm off it the margin is less.

    Args:
        mri: zero where it shows nothing.
        seen: `features.SelfSimilarities` of both, computed at a transform near ``matrix``.
        fit: of these features, from ``matrix`` or before it.
        matrix: ``T_fixed_moving``, 4x4, RAS mm.

    Returns:
        Mean cosine at the transform minus that in the best of 26 directions; None where too little
        of the ultrasound lies on the MRI.
    """
    pick = torch.linspace(0, len(seen.points) - 1, min(_POINTS, len(seen.points)))
    points = seen.points[pick.long().to(seen.points.device)]
    moved = transform.rms_displacement_mm(points, matrix, fit.fitted)
    at = fit.fitted if moved <= NEAR_MM else matrix
    places = transform.apply(at, points)
    shown = mri.contains(places, _RIM_MM) & (mri.sample(places) > 0)
    points, places = points[shown], places[shown]
    if len(places) < _FEWEST:
        return None
    own = seen.moving.sample(points)
    shifts = torch.as_tensor(_SHIFTS, dtype=places.dtype, device=places.device)
    around = (places + shifts[:, None]).flatten(0, 1)
    beside = seen.fixed.sample(around).unflatten(0, (len(shifts), -1))
    here = (seen.fixed.sample(places) * own).sum(1).mean()
    return float(here - (beside * own).sum(2).mean(1).amax())
