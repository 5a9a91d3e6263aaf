"""Simulated matches with a known truth, for the tests of estimation and trust."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from CrossKEYLib.geometry.transform import Matrix, apply, arbitrary_rigid

CENTRE = np.array([30.0, -40.0, 50.0])  # of the moving field of view, RAS mm


@dataclass
class Matched:
    """Matches of which those with ``right`` obey ``T_fixed_moving`` up to noise."""

    fixed: torch.Tensor
    moving: torch.Tensor
    T_fixed_moving: Matrix
    right: torch.Tensor
    fov: torch.Tensor

    def tre(self, matrix: Matrix | None) -> float:
        """Mean target registration error over the field of view, mm."""
        assert matrix is not None
        fov = self.fov.double()
        return float((apply(matrix, fov) - apply(self.T_fixed_moving, fov)).norm(dim=1).mean())


def simulate(seed: int, count: int = 1500, share: float = 0.06, noise_mm: float = 1.5) -> Matched:
    """A 60 mm field of view in a 120 mm head, an arbitrary rotation and a 30 mm shift.

    ``noise_mm`` is the standard deviation per axis; wrong matches end anywhere in the head.
    """
    rng = np.random.default_rng(seed)
    T = arbitrary_rigid(rng, 30, CENTRE)
    moving = as_points(CENTRE + rng.uniform(-30, 30, (count, 3)))
    centre = apply(T, as_points(CENTRE[None]))[0].numpy()
    fixed = as_points(centre + rng.uniform(-60, 60, (count, 3)))
    right = torch.zeros(count, dtype=torch.bool)
    right[torch.as_tensor(rng.permutation(count)[: round(share * count)])] = True
    matched = Matched(fixed, moving, T, right, fov_grid())
    place_right(matched, moving[right], rng, noise_mm)
    return matched


def place_right(
    matched: Matched, points: torch.Tensor, rng: np.random.Generator, noise_mm: float
) -> None:
    """Put the moving ends of the right matches at ``points`` and the fixed ends where they go."""
    matched.moving[matched.right] = points
    noise = as_points(rng.normal(0, noise_mm, points.shape))
    matched.fixed[matched.right] = apply(matched.T_fixed_moving, points) + noise


def fov_grid() -> torch.Tensor:
    axis = torch.linspace(-30, 30, 6)
    return torch.cartesian_prod(axis, axis, axis) + as_points(CENTRE)


def as_points(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
