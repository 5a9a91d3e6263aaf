"""ANTs through ANTsPy: rigid, Mattes mutual information.

Avants et al., NeuroImage 54(3), 2011. The package is optional.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...config import Settings
from ...config.values import Count, CountOrZero, PositiveShare
from ...errors import EstimationError, InputError
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from .images import Geometry, Pair, from_itk

INSTALL = "ANTs is not installed; run: pip install antspyx"


@dataclass(frozen=True)
class AntsConfig(Settings):
    """ANTsPy's defaults for a rigid stage, with a mask at every level and denser sampling."""

    bins: Count = 32
    sampling_share: PositiveShare = 0.5  # regular, of the voxels in the mask
    iterations: tuple[CountOrZero, ...] = (2100, 1200, 1200, 100)
    shrink_factors: tuple[Count, ...] = (6, 4, 2, 1)
    sigma_voxels: tuple[CountOrZero, ...] = (3, 2, 1, 0)


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: AntsConfig | None = None
) -> Matrix:
    """Register the iUS from its present pose by ANTs, without its centre-of-mass start.

    Arguments and result are those of `mutual_information.register`.

    Raises:
        InputError: an image that holds nothing, or ANTs is not installed.
        EstimationError: ANTs gave up.
    """
    ants = package()
    config = config or AntsConfig()
    pair = Pair.of(fixed, moving)
    with tempfile.TemporaryDirectory() as folder, _seeded(ants, seed + 1):  # 0 means the clock
        try:
            found = ants.registration(
                fixed=_image(ants, pair.ius),
                moving=_image(ants, pair.mri),
                mask=_image(ants, pair.mask),
                mask_all_stages=True,
                type_of_transform="Rigid",
                initial_transform="Identity",
                aff_metric="mattes",
                aff_sampling=config.bins,
                aff_random_sampling_rate=config.sampling_share,
                aff_iterations=config.iterations,
                aff_shrink_factors=config.shrink_factors,
                aff_smoothing_sigmas=config.sigma_voxels,
                outprefix=os.path.join(folder, "ants"),
                singleprecision=False,
            )
        except (RuntimeError, ValueError) as error:
            raise EstimationError(f"ANTs: {str(error).strip().splitlines()[-1]}") from error
        matrix = np.eye(4)
        for path in reversed(found["fwdtransforms"]):
            matrix = _matrix(ants.read_transform(path)) @ matrix
    return matrix


def _matrix(found: Any) -> Matrix:
    """From ITK's nine matrix entries and translation about a centre, all LPS."""
    values, centre = np.array(found.parameters), np.array(found.fixed_parameters)
    rotation = values[:9].reshape(3, 3)
    return from_itk(rotation, values[9:] + centre - rotation @ centre)


def _image(ants: Any, volume: Volume) -> Any:
    place = Geometry.of(volume)
    return ants.from_numpy(
        volume.array.numpy().transpose(2, 1, 0).astype(np.float32),  # ANTsPy indexes i, j, k
        origin=place.origin.tolist(),
        spacing=place.spacing.tolist(),
        direction=place.direction,
    )


@contextmanager
def _seeded(ants: Any, seed: int) -> Generator[None, None, None]:
    """ANTsPy seeds the generators of Python and NumPy along with its own; theirs are put back."""
    python, arrays = random.getstate(), np.random.get_state()
    ants.config.set_ants_deterministic(torch.get_num_threads() == 1, seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def package() -> Any:
    """Loaded when asked for: it is optional, and takes seconds.

    Raises:
        InputError: it is missing; the text is the command that installs it.
    """
    # ITK reads this once, when its library is first used.
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(torch.get_num_threads()))
    try:
        import ants
    except ImportError:
        raise InputError(INSTALL) from None
    return ants
