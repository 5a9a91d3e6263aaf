"""Pose and field of view of the probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..geometry import transform
from ..geometry.volume import Grid
from .anatomy import Anatomy


@dataclass(frozen=True, eq=False)
class Probe:
    """A swept probe. Local axes: x lateral, y elevation (sweep), z depth along the beam, mm.

    Attributes:
        local_to_ras: ``[4, 4]``; the origin is the middle of the probe face.
        width_mm: lateral extent at the probe face.
        sweep_mm: elevation extent.
        depth_mm: depth shown.
        apex_mm: distance of the fan's centre behind the face; large values make a slab.
    """

    local_to_ras: np.ndarray
    width_mm: float
    sweep_mm: float
    depth_mm: float
    apex_mm: float

    @classmethod
    def draw(cls, anatomy: Anatomy, generator: torch.Generator) -> Probe:
        """A pose on the brain surface, looking roughly inwards, with a random field of view."""

        def u(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        index = int(torch.randint(len(anatomy.surface), (), generator=generator))
        place = anatomy.surface[index].cpu().numpy().astype(float)
        normal = place[3:] / np.linalg.norm(place[3:])
        inward = anatomy.brain.centre_ras - place[:3]
        normal = normal + inward / max(float(np.linalg.norm(inward)), 1.0)  # towards the middle
        tilt = torch.randn(3, generator=generator).numpy() * np.radians(15)
        z = Rotation.from_rotvec(tilt).apply(normal / max(float(np.linalg.norm(normal)), 1e-3))
        any_direction = torch.randn(3, generator=generator).numpy()
        x = any_direction - (any_direction @ z) * z
        x /= np.linalg.norm(x)
        rotation = np.stack([x, np.cross(z, x), z], axis=1)
        origin = place[:3] - u(-4, 6) * z  # dura or gel between the probe and the cortex
        return cls(
            transform.from_parts(rotation, origin),
            width_mm=u(25, 60),
            sweep_mm=u(35, 75),
            depth_mm=u(40, 80),
            apex_mm=u(25, 120),
        )

    def grid(self, spacing_mm: float) -> Grid:
        """Beam-aligned grid over the field of view: i lateral, j elevation, k depth."""
        half = self.width_mm / 2 * (1 + self.depth_mm / self.apex_mm)
        low = np.array([-half, -self.sweep_mm / 2, 0.0])
        high = np.array([half, self.sweep_mm / 2, self.depth_mm])
        i, j, k = (int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
        local = transform.from_parts(np.eye(3) * spacing_mm, low)
        return Grid((k, j, i), self.local_to_ras @ local)

    def field_of_view(
        self, grid: Grid, generator: torch.Generator, device: torch.device
    ) -> torch.Tensor:
        """Bool ``[K, J, I]`` on `grid()`: a fan or slab of ragged frames, some missing."""
        k, j, i = grid.shape
        step = float(np.linalg.norm(grid.ijk_to_ras[:3, 0]))
        z = torch.arange(k, device=device)[:, None, None] * step
        x = (torch.arange(i, device=device) - (i - 1) / 2)[None, None] * step
        radius = torch.sqrt((z + self.apex_mm) ** 2 + x**2) - self.apex_mm
        # Hand-held sweeps jitter: start, end and tilt of every frame differ slightly.
        jitter = torch.randn(3, j, generator=generator)
        jitter = torch.nn.functional.avg_pool1d(
            torch.nn.functional.pad(jitter, (3, 3), mode="reflect"), 7, 1
        ).to(device)
        shift, deep, lean = jitter[:, None, :, None]
        half = self.width_mm / 2 + 2.5 * lean
        fan = (x + 3 * shift).abs() * self.apex_mm < half * (z + self.apex_mm)
        view = fan & (radius >= 0) & (radius < self.depth_mm - 2 + 3 * deep)
        missing = torch.rand(4, generator=generator)
        if float(missing[0]) < 0.15:
            at = int(missing[1] * j)
            view[:, at : at + 1 + int(4 * missing[2])] = False
        return view
