"""The general model on a head that it was never trained on, from a large misplacement."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.evaluation.cases import simulated
from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.synthesis.anatomy import read_anatomy

HEAD = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
ABOVE_FLOOR_MM = 1.0


def mni152() -> Volume:
    """MNI ICBM152 2009a, with skull, as nilearn brings it; nilearn itself need not be imported."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        pytest.skip("nilearn is not installed")
    return Volume.read(Path(found.submodule_search_locations[0]) / HEAD)


def test_a_head_that_was_never_trained_on_is_registered_and_accepted():
    """Ultrasound simulated with brain shift, 30 mm and 30 degrees off. No rigid transform fits what
    was deformed, so the error counts above that of the best rigid fit."""
    mri = mni152()
    images = simulated(mri, read_anatomy([mri]), (0, 0), deformed=True)
    start = start_of("30 / 30", 0, images.ius.centre_ras)
    assert images.targets_fixed is not None
    assert images.targets_moving is not None
    moving = transform.apply(start, images.targets_moving)
    targets = images.targets_fixed, moving
    floor = target_errors(landmark_fit(*targets), *targets).mean()
    result = register(mri, images.ius.moved(start))
    assert result.matrix is not None
    assert target_errors(result.matrix, *targets).mean() - floor < ABOVE_FLOOR_MM
    assert result.trust.verdict == "accepted"
