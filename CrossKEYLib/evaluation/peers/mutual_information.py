"""Mattes mutual information with SimpleITK: rigid, from coarse to fine.

Mattes et al., IEEE Transactions on Medical Imaging 22(1), 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ...config import Settings
from ...config.values import Count, NotNegative, Positive, PositiveShare
from ...errors import EstimationError
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from .images import LPS_RAS, Pair, from_itk, to_sitk


@dataclass(frozen=True)
class MutualInformationConfig(Settings):
    """The settings of SimpleITK's own multi-resolution examples, with denser sampling."""

    bins: Count = 50
    sampling_share: PositiveShare = 0.25  # of the voxels in the mask
    spacing_mm: tuple[Positive, ...] = (4.0, 2.0, 1.0)  # of the iUS, per level
    sigma_mm: tuple[NotNegative, ...] = (2.0, 1.0, 0.5)  # of the Gaussian before, per level
    learning_rate: Positive = 1.0  # mm, largest displacement of a step
    min_step: Positive = 1e-3
    iterations: Count = 300  # per level


def register(
    fixed: Volume,
    moving: Volume,
    seed: int = 0,
    config: MutualInformationConfig | None = None,
) -> Matrix:
    """Register the iUS from its present pose to the nearest maximum of mutual information.

    Args:
        fixed, moving: MRI and iUS, as read.
        seed: of the samples.
        config: settings.

    Returns:
        ``T_fixed_moving``, 4x4, RAS mm.

    Raises:
        InputError: an image that holds nothing.
        EstimationError: the images do not overlap, at the start or later.
    """
    config = config or MutualInformationConfig()
    pair = Pair.of(fixed, moving)
    ius, mri = to_sitk(pair.ius), to_sitk(pair.mri)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(torch.get_num_threads())
    method.SetMetricAsMattesMutualInformation(config.bins)
    method.SetMetricFixedMask(sitk.Cast(to_sitk(pair.mask), sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(config.sampling_share, seed + 1)  # 0 means the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        config.learning_rate, config.min_step, config.iterations
    )
    method.SetOptimizerScalesFromPhysicalShift()
    factors = [np.maximum(1, np.round(s / pair.ius.spacing_mm)) for s in config.spacing_mm]
    method.SetShrinkFactorsPerLevel([int(f.min()) for f in factors])
    method.SetSmoothingSigmasPerLevel(list(config.sigma_mm))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    start = sitk.Euler3DTransform()
    start.SetCenter((LPS_RAS[:3, :3] @ pair.centre_ras).tolist())
    method.SetInitialTransform(start, inPlace=False)
    try:
        found = method.Execute(ius, mri)
    except RuntimeError as error:
        raise EstimationError(f"mutual information: {_last_line(error)}") from error
    origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(found.TransformPoint(axis)) - origin for axis in np.eye(3).tolist()]
    return from_itk(np.stack(columns, 1), origin)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
