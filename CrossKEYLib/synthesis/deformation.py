"""Deformation of ultrasound against MRI: tissue moves, and ultrasound distorts positions.

Four causes are drawn anew for every sweep. Tissue is pressed in under the probe, or sinks away from
it. It shifts smoothly. Sound is a few per cent slower or faster than the machine assumes, which
stretches the image along the beam. Calibration and tracking of a hand-held sweep leave a small
shear and a drift. A rigid registration can only undo the part that is common to all points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..geometry import transform
from ..geometry.filters import gaussian, sample_channels
from ..geometry.transform import Matrix
from ..geometry.volume import Grid
from .probe import Probe

STEP_MM = 4.0  # of the grid that holds the displacements; they change over 15 mm or more
MARGIN_MM = 12.0  # kept around the field of view
SHIFT_MM = 3.0  # largest standard deviation, per axis, of the smooth shift
PRESSED_MM, SUNK_MM = 8.0, 5.0  # largest displacement at the probe, inwards and outwards
SLOWEST, FASTEST = -0.02, 0.04  # speed of sound in tissue against the one assumed, relative
SHEAR = 0.02  # largest, between frames; also how wrong their distance may be
DRIFT_MM = 0.5  # largest standard deviation, per axis, of the position of a frame


@dataclass(frozen=True, eq=False)
class Deformation:
    """Maps points of the ultrasound to the corresponding points of the MRI.

    Attributes:
        displacement: ``[3, K, J, I]`` RAS mm, from a point in the ultrasound to that in the MRI.
        ijk_to_ras: ``[4, 4]`` of that grid, in the ultrasound's world.
    """

    displacement: torch.Tensor
    ijk_to_ras: Matrix

    def to_mri(self, points: torch.Tensor) -> torch.Tensor:
        """RAS ``points [..., 3]`` of the ultrasound, in the MRI; points farther than `MARGIN_MM`
        from the field of view stay where they are."""
        moved = sample_channels(self.displacement, transform.invert(self.ijk_to_ras), points)
        return points + moved.movedim(0, -1)

    @classmethod
    def draw(
        cls, probe: Probe, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> Deformation:
        """Draw a deformation for a sweep; its strength varies from almost none to the largest.

        Args:
            probe: the sweep.
            generator: CPU generator.
            device: of the displacements.
        """

        def u(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        strength = u(0, 1) ** 0.5
        grid = _grid(probe)
        local = transform.apply(transform.invert(probe.local_to_ras), grid.points())
        x, y, z = local.unbind(-1)
        shift = _smooth(grid, u(15, 50), generator) * (strength * u(0.2, 1) * SHIFT_MM)
        pressed = strength * u(-SUNK_MM, PRESSED_MM)
        reach, width = u(10, 30), u(15, 40)
        below = torch.exp(-z.clamp_min(0) / reach - (x.square() + y.square()) / (2 * width**2))
        # Tissue that was pressed in lies deeper in the ultrasound than in the MRI.
        shift[2] -= pressed * below
        # An image drawn with too low a speed is too short along the beam.
        shift[2] += strength * u(SLOWEST, FASTEST) * z
        shear = torch.tensor([u(-SHEAR, SHEAR) for _ in range(3)])
        drift = _smooth_line(grid.shape[1], u(8, 30), generator) * (strength * u(0, DRIFT_MM))
        shift += strength * shear[:, None, None, None] * y + drift[:, None, :, None]
        turn = torch.as_tensor(probe.local_to_ras[:3, :3], dtype=shift.dtype)
        displacement = torch.einsum("ab,bkji->akji", turn, shift)
        return cls(displacement.to(device), grid.ijk_to_ras)


def _grid(probe: Probe) -> Grid:
    """Along the probe's axes: i lateral, j elevation (frames), k depth."""
    fine = probe.grid(1.0)
    size = np.array(fine.shape[::-1]) - 1 + 2 * MARGIN_MM
    i, j, k = (int(n) for n in np.ceil(size / STEP_MM) + 1)
    into = transform.from_parts(STEP_MM * np.eye(3), np.full(3, -MARGIN_MM))
    return Grid((k, j, i), fine.ijk_to_ras @ into)


def _smooth(grid: Grid, length_mm: float, generator: torch.Generator) -> torch.Tensor:
    """``[3, K, J, I]`` of unit variance that changes over about ``length_mm``."""
    noise = torch.randn(3, *grid.shape, generator=generator)
    field = gaussian(noise, length_mm / 2 / STEP_MM)
    return field / field.std().clamp_min(1e-6)


def _smooth_line(count: int, length_mm: float, generator: torch.Generator) -> torch.Tensor:
    """``[3, count]`` of unit variance, likewise, along the sweep."""
    coarse = max(2, int(count * STEP_MM / length_mm) + 1)
    noise = torch.randn(3, 1, coarse, generator=generator)
    return F.interpolate(noise, count, mode="linear", align_corners=True)[:, 0]
