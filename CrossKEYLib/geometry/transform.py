"""Rigid and affine 4x4 matrices in RAS millimetres, always float64.

Convention: ``T_fixed_moving`` maps moving points to fixed points, ``p_fixed = T @ p_moving``;
adjacent names cancel on composition, ``T_a_c = T_a_b @ T_b_c``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]


def apply(matrix: Matrix | torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points ``[..., 3]`` (mm) by a 4x4 matrix; the result keeps their dtype and device."""
    m = torch.as_tensor(matrix, dtype=points.dtype, device=points.device)
    return points @ m[:3, :3].T + m[:3, 3]


def invert(matrix: Matrix) -> Matrix:
    """Inverse of an affine 4x4 matrix; the last row stays exactly (0, 0, 0, 1)."""
    inverse = np.eye(4)
    inverse[:3, :3] = np.linalg.inv(matrix[:3, :3])
    inverse[:3, 3] = -inverse[:3, :3] @ matrix[:3, 3]
    return inverse


def nearest_rotation(matrix: Matrix) -> NDArray[np.float64]:
    """The 3x3 rotation nearest to the linear part of an affine 4x4."""
    u, _, vt = np.linalg.svd(matrix[:3, :3])
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def nearest_axes(matrix: Matrix) -> NDArray[np.float64]:
    """The orthonormal 3x3 axes nearest to those of an ijk-to-RAS matrix, without its spacing and
    shear; left-handed where that is."""
    columns = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    u, _, vt = np.linalg.svd(columns)
    return u @ vt


def from_parts(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """Assemble 4x4 from a 3x3 linear part and a translation in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def about(centre: ArrayLike, rotation: ArrayLike, translation: ArrayLike = (0, 0, 0)) -> Matrix:
    """Rotate by a 3x3 matrix about ``centre`` (mm), then translate (mm)."""
    centre = np.asarray(centre, float)
    rotation = np.asarray(rotation, float)
    return from_parts(rotation, centre - rotation @ centre + np.asarray(translation, float))


def perturbations_about(
    centre: ArrayLike, noise: np.ndarray, translation_mm: float, angle_deg: float
) -> np.ndarray:
    """Rigid motions ``[H, 4, 4]`` from noise ``[H, 6]``: rotation vectors about ``centre`` (mm) in
    units of ``angle_deg``, then shifts in units of ``translation_mm``."""
    centre = np.asarray(centre, float)
    steps = np.tile(np.eye(4), (len(noise), 1, 1))
    turns = Rotation.from_rotvec(np.radians(angle_deg) * noise[:, :3]).as_matrix()
    steps[:, :3, :3] = turns
    steps[:, :3, 3] = centre - turns @ centre + translation_mm * noise[:, 3:]
    return steps


def rms_displacement_mm(points: torch.Tensor, before: Matrix, after: Matrix) -> float:
    """Root mean square distance between where two transforms put points ``[N, 3]`` (mm)."""
    ways = apply(before, points) - apply(after, points)
    return float(ways.square().sum(1).mean().sqrt())


def rotation_angle_deg(matrix: Matrix) -> float:
    """Angle of the rotation part, 0 to 180 degrees."""
    return float(np.degrees(Rotation.from_matrix(matrix[:3, :3]).magnitude()))


def random_rigid(
    rng: np.random.Generator, translation_mm: float, angle_deg: float, centre: ArrayLike
) -> Matrix:
    """A rigid motion of exactly this size in a uniformly random direction, about ``centre``.

    The translation has length ``translation_mm``; the rotation has angle ``angle_deg`` about a
    uniformly drawn axis through ``centre`` (RAS mm).
    """
    axis, shift = rng.normal(size=(2, 3))
    rotation = Rotation.from_rotvec(np.radians(angle_deg) * axis / np.linalg.norm(axis))
    return about(centre, rotation.as_matrix(), translation_mm * shift / np.linalg.norm(shift))


def arbitrary_rigid(rng: np.random.Generator, translation_mm: float, centre: ArrayLike) -> Matrix:
    """A rotation drawn uniformly from all rotations, with a shift of ``translation_mm``."""
    shift = rng.normal(size=3)
    # As `Rotation.random`, whose argument SciPy has renamed: a normal quaternion has no direction.
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return about(centre, rotation, translation_mm * shift / np.linalg.norm(shift))
