"""elastix through ITKElastix: rigid, advanced Mattes mutual information.

Klein et al., IEEE Transactions on Medical Imaging 29(1), 2010. The package is optional.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ...config import Settings
from ...config.values import Count, Positive, Share
from ...errors import EstimationError, InputError
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from .images import Geometry, Pair, from_itk

INSTALL = "elastix is not installed; run: pip install itk-elastix"


@dataclass(frozen=True)
class ElastixConfig(Settings):
    """elastix's own rigid parameter map; these replace its entries."""

    resolutions: Count = 4
    iterations: Count = 500  # the manual advises 500 to 2000
    samples: Count = 4096  # new ones in each iteration
    bins: Count = 32
    # In the first iteration: the size of a voxel, as the manual advises.
    max_step_mm: Positive = 1.0
    least_valid_share: Share = 0.1  # of the samples, inside the MRI

    def entries(self, seed: int) -> dict[str, str]:
        return {
            "NumberOfResolutions": str(self.resolutions),
            "MaximumNumberOfIterations": str(self.iterations),
            "NumberOfSpatialSamples": str(self.samples),
            "NewSamplesEveryIteration": "true",
            "ImageSampler": "RandomCoordinate",
            "ErodeMask": "false",  # else almost nothing of a fan remains on coarse levels
            "NumberOfHistogramBins": str(self.bins),
            "MaximumStepLength": str(self.max_step_mm),
            "RequiredRatioOfValidSamples": str(self.least_valid_share),
            "AutomaticTransformInitialization": "false",
            "AutomaticScalesEstimation": "true",
            "RandomSeed": str(seed + 1),
            "WriteResultImage": "false",
        }


def register(
    fixed: Volume, moving: Volume, seed: int = 0, config: ElastixConfig | None = None
) -> Matrix:
    """Register the iUS from its present pose by elastix.

    Arguments and result are those of `mutual_information.register`.

    Raises:
        InputError: an image that holds nothing, or elastix is not installed.
        EstimationError: elastix gave up.
    """
    itk = package()
    pair = Pair.of(fixed, moving)
    with _tolerant():
        found = _run(itk, pair, (config or ElastixConfig()).entries(seed))
    return _matrix(
        [float(v) for v in found["TransformParameters"]],
        [float(v) for v in found["CenterOfRotationPoint"]],
    )


def _run(itk: Any, pair: Pair, settings: dict[str, str]) -> Any:
    """elastix's map of the transform it found; `EstimationError` where it found none."""
    parameters = itk.ParameterObject.New()
    entries = parameters.GetDefaultParameterMap("rigid")
    for name, value in settings.items():
        entries[name] = [value]
    parameters.AddParameterMap(entries)
    method = itk.ElastixRegistrationMethod.New(
        _image(itk, pair.ius, np.float32), _image(itk, pair.mri, np.float32)
    )
    method.SetFixedMask(_image(itk, pair.mask, np.uint8))
    method.SetParameterObject(parameters)
    method.SetNumberOfThreads(torch.get_num_threads())
    method.SetLogToConsole(False)
    try:
        method.UpdateLargestPossibleRegion()
    except RuntimeError as error:
        reason = "the iUS may have left the MRI" if "log" in str(error) else str(error)
        raise EstimationError(f"elastix gave up: {reason.strip().splitlines()[-1]}") from error
    return method.GetTransformParameterObject().GetParameterMap(0)


def _matrix(parameters: list[float], centre: list[float]) -> Matrix:
    """From Euler angles (rad) and translation (mm) about a centre, all LPS."""
    euler = sitk.Euler3DTransform()
    euler.SetCenter(centre)
    euler.SetParameters(parameters)
    rotation = np.array(euler.GetMatrix()).reshape(3, 3)
    offset = np.array(euler.GetTranslation()) + centre - rotation @ centre
    return from_itk(rotation, offset)


def _image(itk: Any, volume: Volume, kind: type) -> Any:
    image = itk.image_from_array(np.ascontiguousarray(volume.array.numpy().astype(kind)))
    place = Geometry.of(volume)
    image.SetSpacing(place.spacing.tolist())
    image.SetOrigin(place.origin.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(place.direction)))
    return image


def package() -> Any:
    """Loaded when asked for: it is optional, and takes seconds.

    Raises:
        InputError: it is missing; the text is the command that installs it.
    """
    try:
        with _tolerant():
            import itk  # type: ignore[reportMissingImports]

            itk.ElastixRegistrationMethod  # noqa: B018 - itk alone does not hold it
    except (ImportError, AttributeError):
        raise InputError(INSTALL) from None
    return itk


@contextmanager
def _tolerant() -> Generator[None, None, None]:
    """ITK's extension modules crash where a caller has turned warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
