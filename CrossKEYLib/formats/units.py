"""Units of length that headers state, brought to mm."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..geometry.transform import Matrix
from .options import tell

MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "cm": 10.0,
    "um": 1e-3,
    "µm": 1e-3,  # the micro sign
    "μm": 1e-3,  # the Greek letter
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
}
SPACING_MM = (0.01, 20.0)  # voxel edges of any scanner


def to_mm(ijk_to_world: Matrix, unit: str) -> Matrix:
    """A 4x4 matrix from index to world, whose world is in ``unit``, with its world in mm.

    Raises:
        InputError: an unknown unit, or one that makes voxels of impossible size.
    """
    name = unit.strip().lower()
    factor = MILLIMETRES.get(name) or MILLIMETRES.get(name.removesuffix("s"))
    if factor is None:
        raise InputError(f"its header states lengths in {unit!r}; export it again in mm")
    if factor == 1:
        return ijk_to_world
    spacing = np.linalg.norm(ijk_to_world[:3, :3], axis=0)
    if not plausible(spacing * factor):
        raise InputError(
            f"its header states lengths in {unit}, which makes voxels of {_mm(spacing * factor)}; "
            "correct the unit in the header or export it again in mm"
        )
    tell(f"its header states lengths in {unit}; they were converted to mm")
    scaled = ijk_to_world.copy()
    scaled[:3] *= factor
    return scaled


def plausible(spacing_mm: np.ndarray) -> bool:
    low, high = SPACING_MM
    return bool(((spacing_mm >= low) & (spacing_mm <= high)).all())


def check_spacing(spacing_mm: np.ndarray) -> None:
    """Refuse voxel edge lengths (mm) that no scanner makes.

    Raises:
        InputError: an edge under 0.01 mm or over 20 mm.
    """
    if plausible(spacing_mm):
        return
    looks = [
        f" (it looks like {name})"
        for name, factor in (("metres", 1e3), ("micrometres", 1e-3))
        if plausible(np.asarray(spacing_mm) * factor)
    ]
    low, high = SPACING_MM
    raise InputError(
        f"its voxel spacing is {_mm(spacing_mm)}{''.join(looks)}, "
        f"expected {low:g} to {high:g} mm; export it again in mm"
    )


def _mm(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in spacing) + " mm"
