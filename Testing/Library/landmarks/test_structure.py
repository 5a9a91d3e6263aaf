"""The structure of two images speaks for the pose in which they were made, and for no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import texture

from CrossKEYLib.geometry import transform
from CrossKEYLib.landmarks.structure import CLEAR_MARGIN, confirmed, structure_margin

IMAGE = texture(56, grain=2.5)
MOTION = transform.random_rigid(np.random.default_rng(2), 12.0, 70.0, IMAGE.centre_ras)
OTHER = IMAGE.replaced((1.1 - IMAGE.array) ** 2).moved(transform.invert(MOTION))


def off(shift_mm: float, angle_deg: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return transform.random_rigid(rng, shift_mm, angle_deg, IMAGE.centre_ras) @ MOTION


def test_the_true_pose_is_confirmed_whatever_the_contrast():
    """A falling and bent curve of the same intensities."""
    assert structure_margin(IMAGE, OTHER, MOTION) > 0.5
    assert confirmed(IMAGE, OTHER, off(1.0))


@pytest.mark.parametrize("seed", range(6))
def test_wrong_poses_are_not_confirmed(seed):
    assert not confirmed(IMAGE, OTHER, off(0.0, 180.0, seed))
    assert structure_margin(IMAGE, OTHER, off(15.0, 3.0, seed)) < CLEAR_MARGIN


def test_images_that_hardly_overlap_confirm_nothing():
    assert structure_margin(IMAGE, OTHER, off(200.0)) == 0


def test_flat_patches_say_nothing_for_a_pose():
    flat = IMAGE.replaced(torch.full_like(IMAGE.array, 0.5))
    assert abs(structure_margin(flat, OTHER, MOTION)) < CLEAR_MARGIN
