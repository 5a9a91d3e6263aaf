"""Small brains with a closed form, as an MRI would show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from CrossKEYLib.geometry.transform import Matrix, from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import Anatomy, read_anatomy
from CrossKEYLib.synthesis.probe import Probe
from CrossKEYLib.synthesis.style import Style

DATA = Path(__file__).parents[4] / "shared" / "data"
CENTRE = np.array([-12.0, 31.0, 45.0])  # RAS mm, far from zero and from every symmetry
BLOCK_MM = 52.0
TISSUE, FLUID_DARK, FLUID_BRIGHT = 100.0, 15.0, 220.0
NORMAL = np.array([2.0, 1.0, 2.0]) / 3  # of the sheet
SHEET_MM = 2.5  # full thickness
BALL_MM = 10.0  # radius


def grid_around(centre: np.ndarray, linear: np.ndarray, size_mm: float) -> Grid:
    """Cube about ``centre`` whose index axes are the columns of ``linear`` (mm per index)."""
    i, j, k = (round(size_mm / n) + 1 for n in np.linalg.norm(linear, axis=0))
    middle = (np.array([i, j, k]) - 1) / 2
    return Grid((k, j, i), from_parts(linear, centre - linear @ middle))


def block(linear: Matrix | None = None) -> Grid:
    """Grid of a brain that fills its whole image."""
    return grid_around(CENTRE, np.eye(3) if linear is None else linear, BLOCK_MM)


def mottled(grid: Grid, level: float = TISSUE, seed: int = 0) -> torch.Tensor:
    """Tissue with a little noise: quantiles of a perfectly even image would mean nothing."""
    noise = torch.randn(grid.shape, generator=torch.Generator().manual_seed(seed))
    return level + noise


def sheet(grid: Grid, fluid: float = FLUID_DARK) -> Volume:
    """A block with a flat sheet of fluid through `CENTRE`."""
    array = mottled(grid)
    array[sheet_distance(grid.points()) < SHEET_MM / 2] += fluid - TISSUE
    return Volume(array, grid.ijk_to_ras)


def sheet_distance(points: torch.Tensor) -> torch.Tensor:
    """Of RAS points ``[..., 3]`` from the sheet's middle plane, mm."""
    offset = points - torch.tensor(CENTRE, dtype=torch.float32)
    return (offset @ torch.tensor(NORMAL, dtype=torch.float32)).abs()


def ball(grid: Grid, fluid: float = FLUID_DARK) -> Volume:
    """A block with a ball of fluid at `CENTRE`."""
    array = mottled(grid)
    array[ball_distance(grid.points()) < BALL_MM] += fluid - TISSUE
    return Volume(array, grid.ijk_to_ras)


def ball_distance(points: torch.Tensor) -> torch.Tensor:
    """Of RAS points ``[..., 3]`` from the ball's centre, mm."""
    return (points - torch.tensor(CENTRE, dtype=torch.float32)).norm(dim=-1)


def whole(volume: Volume) -> Volume:
    """Mask that calls all of it brain."""
    return volume.replaced(torch.ones_like(volume.array))


def block_anatomy(volume: Volume) -> Anatomy:
    return read_anatomy([volume], whole(volume))


def probe_above(axes: np.ndarray | None = None, **changes: float) -> Probe:
    """Looks through the block's centre from outside; its axes are the columns of ``axes``."""
    axes = np.eye(3) if axes is None else axes
    size = {"width_mm": 40.0, "sweep_mm": 40.0, "depth_mm": 50.0, "apex_mm": 1000.0} | changes
    return Probe(from_parts(axes, CENTRE - 25.0 * axes[:, 2]), **size)


def clear_style(**changes: object) -> Style:
    """Shows anatomy and nothing else; the given fields replace these."""
    values: dict[str, object] = {
        "tissue_curve": (1.0,) * 6,
        "sheet_gain": 15.0,
        "sheet_level": 0.3,
        "vessel_gain": 0.0,
        "wall_gain": 8.0,
        "fluid_level": 0.05,
        "angle_dependence": 0.0,
        "fading": 0.0,
        "mottle": 0.0,
        "shows_surroundings": False,
        "surroundings": 0.5,
        "blob_count": 0,
        "blob_gain": 3.0,
        "attenuation": 0.0,
        "focus": 0.0,
        "focus_mm": 20.0,
        "shadow": 0.0,
        "near_field": 0.0,
        "noise": 0.0,
        "axial_mm": 0.4,
        "lateral_mm": 0.6,
        "lateral_growth": 0.0,
        "dynamic_range": 5.0,
        "gamma": 1.0,
        "speckle": 0.0,
    }
    return Style(**(values | changes))  # type: ignore[arg-type]
