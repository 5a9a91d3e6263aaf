"""Rigid registration by intensities alone, for comparison: SimpleITK, and elastix where it is.

Both start from where the images lie and return ``T_fixed_moving`` (4x4, RAS mm).
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from .. import transform
from ..transform import Matrix
from ..volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHRINK, SIGMAS_MM = (4, 2, 1), (4.0, 2.0, 0.0)


def mutual_information(fixed: Volume, moving: Volume, seed: int = 0) -> Matrix:
    """Mattes mutual information over three levels, 50 bins, a fifth of the voxels, with masks of
    what the images show (Mattes et al. 2003; SimpleITK's registration framework)."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, seed + 1)
    images = [_image(volume) for volume in (fixed, moving)]
    for image, mask in zip(images, (method.SetMetricFixedMask, method.SetMetricMovingMask)):
        mask(image > 0)
    start = sitk.Euler3DTransform()
    start.SetCenter((LPS[:3, :3] @ fixed.centre_ras).tolist())
    method.SetInitialTransform(start, inPlace=True)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SIGMAS_MM)
    try:
        method.Execute(*images)
    except RuntimeError:  # the images no longer overlap
        return np.eye(4)
    return _matrix(start)


def has_elastix() -> bool:
    """Whether the package itk-elastix is installed."""
    return find_spec("itk") is not None and find_spec("itk.ElastixRegistrationMethodPython") is None


def elastix(fixed: Volume, moving: Volume) -> Matrix:
    """The default rigid parameter map of elastix (Klein et al. 2010): advanced Mattes mutual
    information, adaptive stochastic gradient descent, four levels."""
    import itk  # an optional peer

    with tempfile.TemporaryDirectory() as folder:
        images: list[Any] = []
        for name, volume in (("fixed", fixed), ("moving", moving)):
            path = Path(folder) / f"{name}.nii.gz"
            sitk.WriteImage(_image(volume), str(path))
            images.append(itk.imread(str(path), itk.F))
    settings = itk.ParameterObject.New()
    settings.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap("rigid"))
    try:
        _, found = itk.elastix_registration_method(
            *images, parameter_object=settings, log_to_console=False
        )
    except RuntimeError:  # too few samples map inside
        return np.eye(4)
    values = found.GetParameterMap(0)
    result = sitk.Euler3DTransform()
    result.SetCenter([float(v) for v in values["CenterOfRotationPoint"]])
    result.SetParameters([float(v) for v in values["TransformParameters"]])
    return _matrix(result)


def _image(volume: Volume) -> sitk.Image:
    """The same image for ITK, whose world is LPS."""
    image = sitk.GetImageFromArray(volume.array.cpu().numpy())
    matrix = LPS @ volume.ijk_to_ras
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def _matrix(found: sitk.Euler3DTransform) -> Matrix:
    """ITK maps points of the fixed image to the moving one, in LPS."""
    linear = np.array(found.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(found.GetCenter()), np.array(found.GetTranslation())
    lps = transform.from_parts(linear, centre + shift - linear @ centre)
    return transform.invert(LPS @ lps @ LPS)
