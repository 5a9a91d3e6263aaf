"""Rigid registration by intensities alone, for comparison: SimpleITK, and elastix where it is.

Both start from where the images lie and return ``T_fixed_moving`` (4x4, RAS mm).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .. import transform
from ..transform import Matrix
from ..volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHRINK, SIGMAS_MM = (4, 2, 1), (4.0, 2.0, 0.0)


def mutual_information(fixed: Volume, moving: Volume, seed: int = 0) -> Matrix:
    """Mattes mutual information over three levels, 50 bins, every twentieth voxel, with masks
    of what the images show (Mattes et al. 2003; SimpleITK's registration framework)."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.05, seed + 1)
    images = [_image(volume) for volume in (fixed, moving)]
    for image, mask in zip(
        images, (method.SetMetricFixedMask, method.SetMetricMovingMask), strict=True
    ):
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
    try:
        return bool(version("itk-elastix"))
    except PackageNotFoundError:
        return False


def elastix(fixed: Volume, moving: Volume) -> Matrix:
    """The default rigid parameter map of elastix (Klein et al. 2010): advanced Mattes mutual
    information, adaptive stochastic gradient descent, four levels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / "fixed.nii.gz", folder / "moving.nii.gz", folder / "found.json"]
        for path, volume in zip(paths, (fixed, moving), strict=False):
            sitk.WriteImage(_image(volume), str(path))
        command = [sys.executable, "-m", "CrossKEYLib.evaluation.elastix_process"]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True)
        if done.returncode or not paths[2].exists():  # too few samples map inside
            return np.eye(4)
        found = json.loads(paths[2].read_text(encoding="utf-8"))
    result = sitk.Euler3DTransform()
    result.SetCenter(found["centre"])
    result.SetParameters(found["parameters"])
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
