"""Registration of two images by their universal embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..config import LandmarkConfig, Transform
from ..estimation import RigidResult, estimate_rigid
from ..estimation.matching import Prior, match
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..models.universal import UniversalModel
from .places import places, thinned

SPARSE_MM = 4.0  # between the fixed image's places in the first pass, which searches everywhere


def register_embedded(
    fixed: Volume,
    moving: Volume,
    model: UniversalModel | None = None,
    *,
    transform: Transform = "rigid",
    config: LandmarkConfig | None = None,
    seed: int = 0,
) -> RigidResult:
    """Register two images of one patient, of different contrast and field of view, or of two.

    No start is needed; orientations may differ by about 30 degrees.

    Args:
        fixed, moving: images of any grid.
        model: the bundled one when missing.
        transform: what to estimate.
        config: weights of the heads, matching and estimation.
        seed: of everything random.

    Returns:
        ``T_fixed_moving``, or the reason why there is none.

    Raises:
        InputError: an image is constant.
    """
    model, config = model or UniversalModel.load(), config or LandmarkConfig()
    generator = torch.Generator().manual_seed(seed)
    dense = places(model.embed(fixed), config)
    before: Matrix = np.eye(4)
    best: RigidResult | None = None
    step = 0
    while True:
        first, last = step == 0, step == config.passes - 1
        table = thinned(dense, SPARSE_MM) if first else dense
        prior = None if first else Prior(np.eye(4), config.capture_radius_mm)
        described = places(model.embed(moving.moved(before)), config)
        few = torch.randperm(len(described), generator=generator)[: config.moving_points]
        points, own = described.points[few], described.descriptors[few]
        matches = match(table.descriptors, own, table.points, points, config.match, prior)
        a, b = matches.indices.T
        estimate = replace(config.estimate, transform=transform if last else "rigid")
        result = estimate_rigid(table.points[a], points[b], estimate, generator, matches.scores)
        if result.matrix is None:
            return best or result
        before = result.matrix @ before
        best = replace(result, matrix=before)
        if last:
            return best
        step += 1
