"""A small pair whose registration is known, and results made up for it."""

from __future__ import annotations

import numpy as np
import torch

from CrossKEYLib.estimation.matching import Matches
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.described import Described
from CrossKEYLib.registration.result import Registration
from CrossKEYLib.trust.assess import Trust
from phantoms.training import texture

SIZE = 44
TRUTH = transform.random_rigid(np.random.default_rng(3), 6.0, 12.0, [0.0, 35.0, 60.0])


def pair() -> tuple[Volume, Volume]:
    """An MRI that fills its box, and an iUS that shows a ball of it, moved by ``inv(TRUTH)``."""
    mri = texture(SIZE)
    away = np.linalg.norm(np.indices(mri.shape) - (SIZE - 1) / 2, axis=0)
    ball = torch.from_numpy(away < 0.4 * SIZE)
    return mri, mri.replaced(mri.array * ball).moved(transform.invert(TRUTH))


def outcome(accepted: bool = True, found: bool = True, doubtful: bool = False) -> Registration:
    """What registering `pair` might return; two of three matches are right."""
    ius = pair()[1]
    generator = torch.Generator().manual_seed(0)
    inside = (ius.array > 0).nonzero()
    moving = ius.points_ras(inside[torch.randperm(len(inside), generator=generator)[:90]].float())
    fixed = transform.apply(TRUTH, moving)
    fixed[60:] = fixed[60:].roll(1, 0)
    trust = Trust(
        n_inliers=60,
        independent_inliers=40.0,
        chance_inliers=4.0,
        chance_deviation=1.0,
        chance_ratio=6.0,
        score_ratio=3.0,
        mind_margin=0.03,
        lc2_margin=0.3,
        spread_mm=9.0,
        inlier_rms_mm=0.0,
        agreement_mm=0.5 if found else None,
        deformation_mm=0.1,
        raw_error_mm=0.4 if found else None,
        predicted_tre_mm=0.6 if found else None,
        confidence=0.97 if accepted else 0.1,
        verdict="doubtful" if doubtful else "accepted" if accepted else "refused",
        reasons=[] if accepted and not doubtful else ["Too few matches agree."],
    )
    return Registration(
        TRUTH if found else None,
        trust,
        Described(fixed, torch.ones(90, 1)),
        Described(moving, torch.ones(90, 1)),
        Matches(torch.arange(90)[:, None].expand(90, 2), torch.ones(90)),
        (torch.arange(90) < 60) & found,
        Matches(torch.arange(60 * found)[:, None].expand(-1, 2), torch.ones(60 * found)),
        90,
        {"total": 1.5},
        "cpu",
        "test",
    )
