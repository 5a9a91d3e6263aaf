"""Spots and tumours that are drawn into both images of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

WAVES = 4  # of different directions that make an outline irregular
RIM_MM = 1.2  # half width (Gaussian sigma) of a tumour's border zone


@dataclass(frozen=True, eq=False)
class Lesion:
    """A round or irregular body in the coordinate system of the MRI.

    Attributes:
        centre: ``[3]`` RAS mm.
        radius_mm: mean radius.
        waves: ``[W, 4]``: direction and phase of the waves of its outline.
        uneven: their amplitude, as a share of the radius; 0 is a ball.
        core: share of the radius that is cyst or necrosis; 0 is solid.
        is_tumour: tumours replace the tissue and may have a border of their own; other spots are
            only brighter or darker.
    """

    centre: torch.Tensor
    radius_mm: float
    waves: torch.Tensor
    uneven: float = 0.0
    core: float = 0.0
    is_tumour: bool = False

    def depth_mm(self, points: torch.Tensor) -> torch.Tensor:
        """Depth ``[...]`` of RAS ``points [..., 3]`` below the surface; negative outside."""
        away = points - self.centre.to(points)
        distance = away.norm(dim=-1)
        if self.uneven == 0:
            return self.radius_mm - distance
        way = away / distance.clamp_min(1e-3)[..., None]
        waves = self.waves.to(points)
        outline = torch.sin(way @ waves[:, :3].T + waves[:, 3]).mean(-1)
        return self.radius_mm * (1 + self.uneven * outline) - distance

    def inside(self, points: torch.Tensor, grown_mm: float = 0.0) -> torch.Tensor:
        """Soft indicator in [0, 1] at RAS ``points [..., 3]``, its outline moved outwards."""
        return torch.sigmoid(2 * (self.depth_mm(points) + grown_mm))

    def parts(
        self, points: torch.Tensor, grown_mm: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Body, border zone and core, each a soft indicator ``[...]`` in [0, 1]."""
        depth = self.depth_mm(points) + grown_mm
        rim = torch.exp(-0.5 * (depth / RIM_MM).square())
        core = torch.sigmoid(2 * (depth - (1 - self.core) * self.radius_mm))
        return torch.sigmoid(2 * depth), rim, core if self.core > 0 else torch.zeros_like(core)


def draw_lesions(
    places: torch.Tensor, spots: int, tumours: int, generator: torch.Generator
) -> list[Lesion]:
    """Spots of 1 to 6 mm and tumours of 6 to 20 mm radius around some of ``places [N, 3]`` (RAS
    mm); none where there are no places."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    lesions = []
    for number in range(spots + tumours if len(places) else 0):
        centre = places[int(torch.randint(len(places), (), generator=generator))]
        if number < spots:
            lesions.append(Lesion(centre, 1 + 5 * u(0, 1) ** 2, torch.zeros(0, 4)))
            continue
        waves = torch.randn(WAVES, 4, generator=generator) * 3
        core = u(0.3, 0.9) if u(0, 1) < 0.5 else 0.0
        lesions.append(Lesion(centre, u(6, 20), waves, u(0, 0.5), core, is_tumour=True))
    return lesions


def lesion_map(lesions: Sequence[Lesion], points: torch.Tensor) -> torch.Tensor:
    """Largest indicator of any of them at RAS ``points [..., 3]``."""
    total = torch.zeros(points.shape[:-1], device=points.device)
    for lesion in lesions:  # at most a handful, and one field at a time bounds the memory
        total = torch.maximum(total, lesion.inside(points))
    return total
