"""Rigid matrices: closed forms and conventions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CrossKEYLib.geometry import transform


def test_apply_equals_homogeneous_product() -> None:
    rng = np.random.default_rng(0)
    matrix = transform.random_rigid(rng, 7, 40, rng.normal(size=3))
    points = rng.normal(size=(5, 3)) * 100
    expected = (np.c_[points, np.ones(5)] @ matrix.T)[:, :3]
    found = transform.apply(matrix, torch.from_numpy(points))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_names_cancel_on_composition() -> None:
    rng = np.random.default_rng(1)
    T_a_b, T_b_c = (transform.random_rigid(rng, 5, 30, (1, 2, 3)) for _ in range(2))
    point = torch.tensor([[4.0, -5.0, 6.0]], dtype=torch.float64)
    step = transform.apply(T_a_b, transform.apply(T_b_c, point))
    torch.testing.assert_close(transform.apply(T_a_b @ T_b_c, point), step)


def test_invert_undoes_an_affine_with_shear_and_flip() -> None:
    matrix = np.array([[-2, 0.3, 0, 5], [0, 1.5, 0.2, -7], [0, 0, 0.8, 1], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(transform.invert(matrix) @ matrix, np.eye(4), atol=1e-14)
    assert (transform.invert(matrix)[3] == [0, 0, 0, 1]).all()


@pytest.mark.parametrize("angle", [0.0, 5.0, 90.0, 180.0])
def test_random_rigid_has_exactly_the_size_asked_for(angle: float) -> None:
    rng = np.random.default_rng(2)
    centre = np.array([10.0, -20.0, 30.0])
    matrix = transform.random_rigid(rng, 12.5, angle, centre)
    assert transform.rotation_angle_deg(matrix) == pytest.approx(angle, abs=1e-6)
    moved = transform.apply(matrix, torch.from_numpy(centre)[None])[0].numpy()
    assert np.linalg.norm(moved - centre) == pytest.approx(12.5)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_arbitrary_rigid_turns_to_every_side() -> None:
    rng = np.random.default_rng(3)
    angles = [
        transform.rotation_angle_deg(transform.arbitrary_rigid(rng, 1, (0, 0, 0)))
        for _ in range(400)
    ]
    # Uniform rotations have density (1 - cos a) / pi: mean angle 90 + 360 / pi^2 degrees.
    assert np.mean(angles) == pytest.approx(90 + 360 / np.pi**2, abs=6)
