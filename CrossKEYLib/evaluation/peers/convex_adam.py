"""ConvexAdam: MIND-SSC, coupled convex optimisation and Adam, a dense field of displacements.

Siebert, Grossbroehmer, Hansen, Heinrich, IEEE Transactions on Medical Imaging 44(2), 2025. It is
deformable; what is compared here is the rigid transform nearest to its field over the ultrasound.
The package is optional.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from ...config import Settings
from ...config.values import Count, Positive
from ...errors import InputError
from ...estimation.kabsch import kabsch
from ...geometry.transform import Matrix
from ...geometry.volume import Grid, Volume
from .images import Pair

INSTALL = "ConvexAdam is not installed; run: pip install convexadam"
_REACH_MM = 24.0  # of the default search: 4 steps of 6 voxels


@dataclass(frozen=True)
class ConvexAdamConfig(Settings):
    """The package's default settings, on a grid of this spacing."""

    spacing_mm: Positive = 1.0
    iterations: Count = 80  # of Adam


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: ConvexAdamConfig | None = None
) -> Matrix:
    """Register the iUS from its present pose by ConvexAdam.

    Args:
        fixed, moving: MRI and iUS, as read.
        seed: not needed; nothing is random.
        config: settings.

    Returns:
        ``T_fixed_moving``, 4x4, RAS mm, that fits the field of displacements best.

    Raises:
        InputError: an image that holds nothing, or ConvexAdam is not installed.
    """
    convex_adam, config = package(), config or ConvexAdamConfig()
    pair = Pair.of(fixed, moving)
    # With a border for displacements.
    grid = Grid.around(pair.ius.corners_ras(), config.spacing_mm, _REACH_MM)
    ius, mri, mask = (volume.resample(grid) for volume in (pair.ius, pair.mri, pair.mask))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package relies on a default that PyTorch warns of
        field = convex_adam.convex_adam_pt(
            ius.array,
            mri.array,
            selected_niter=config.iterations,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
    kji = (mask.array > 0.5).nonzero()
    shift = torch.as_tensor(field, dtype=torch.float64)[tuple(kji.T)]
    ends = [ius.points_ras(place) for place in (kji.double() + shift, kji.double())]
    return kabsch(*ends).numpy()


def package() -> Any:
    """Loaded when asked for: it is optional. Importing it silences all warnings for good, which is
    undone here.

    Raises:
        InputError: it is missing; the text is the command that installs it.
    """
    with warnings.catch_warnings():
        try:
            from convexAdam import convex_adam_MIND  # type: ignore[reportMissingImports]
        except ImportError:
            raise InputError(INSTALL) from None
    return convex_adam_MIND
