"""What landmarks alone say of rigid registration: exact ones, noisy ones, real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from CrossKEYLib.errors import EstimationError
from CrossKEYLib.geometry import transform
from Testing.Studies.rigid_floor import main, rigid_floor

RESECT = Path(__file__).parents[4] / "shared/data/resect"


def pairs(noise_mm: float, count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    moving = torch.from_numpy(rng.normal(0, 10, (count, 3)))
    truth = transform.random_rigid(rng, 12.0, 7.0, moving.mean(0).numpy())
    noise = torch.from_numpy(rng.normal(0, noise_mm, (count, 3)))
    return transform.apply(truth, moving) + noise, moving


def test_exact_landmarks_leave_nothing():
    found = rigid_floor(*pairs(0.0))
    assert (found.count, found.turned, found.shifted) == (16, pytest.approx(7), pytest.approx(12))
    assert max(found.after, found.left_out) < 1e-6
    assert found.uncertain < 1e-4
    assert found.before > 8


def test_noise_is_what_is_left_and_turns_the_fit():
    """Of 48 coordinates the fit takes six; the angle has a standard deviation per axis of about
    noise over radius over the root of the count."""
    found = rigid_floor(*pairs(1.0, 400))
    assert found.after == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.06)  # mean of a Maxwell law
    assert found.left_out > found.after
    per_axis = np.degrees(1.0 / (10 * np.sqrt(2)) / np.sqrt(400))
    assert found.uncertain == pytest.approx(2.8 * per_axis, rel=0.2)  # of three axes, 95 %


def test_a_line_fixes_no_rotation():
    line = torch.arange(5.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(EstimationError):
        rigid_floor(line, line)


@pytest.mark.skipif(not RESECT.exists(), reason="no patient data")
def test_the_floor_of_the_real_case_is_the_known_one(capsys):
    main([str(RESECT / "case24/Case24-MRI-beforeUS.tag")])
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert "| 16 | 1.1 mm |" in row
    assert "| 0.83 mm |" in row
