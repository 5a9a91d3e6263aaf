"""How well a whole image agrees with a transform, not only its best matches.

Nearest neighbours keep one answer a point and lose the rest. Where most of them are wrong, the
descriptors still tell right from wrong places on average: at the true transform the similarity
between each iUS point and the MRI at the place it lands on is raised for nearly all points.
Summed over thousands of points that singles out the true one among the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from .. import transform
from ..transform import Matrix

_STEPS = ((3.0, 4.0), (2.0, 2.5), (1.2, 1.5), (0.8, 1.0), (0.5, 0.6), (0.3, 0.4))  # mm, degrees
_TRIES = 160  # per step
_ELITE = 10  # of the tries, averaged
_REFINING = 2000  # points that guide the climb
_TILE_ELEMENTS = 30_000_000  # descriptor elements gathered at once
_BACKGROUND = 2000  # fixed descriptors that tell how similar a point is to just anything
_CLIP = 4.0  # standard scores beyond this count no more


class DescriptorField:
    """Described points of the fixed image, looked up by place.

    Args:
        points: ``[M, 3]`` RAS mm, at least ``spacing_mm`` from each other.
        descriptors: ``[M, D]`` unit norm.
        spacing_mm: edge of a cell; a place takes the descriptor of the point in its cell.
    """

    def __init__(
        self, points: torch.Tensor, descriptors: torch.Tensor, spacing_mm: float = 2.0
    ) -> None:
        self.descriptors = descriptors
        self.spacing_mm = spacing_mm
        self.origin = points.amin(0) - 1.5 * spacing_mm
        cells = self._cells(points)
        self.size = cells.amax(0) + 2
        self.index = torch.full(tuple(self.size.tolist()), -1, device=points.device)
        self.index[tuple(cells.T)] = torch.arange(len(points), device=points.device)

    def scores(
        self, matrices: torch.Tensor, points: torch.Tensor, descriptors: torch.Tensor
    ) -> torch.Tensor:
        """Mean standard score ``[H]`` of moving points under transforms ``[H, 4, 4]``.

        A point's similarities are standardised over all of the fixed image, so that a transform
        which says nothing scores zero. Points that land outside of all fixed points count zero.

        Args:
            matrices: ``T_fixed_moving``, RAS mm.
            points: ``[N, 3]`` RAS mm, moving.
            descriptors: ``[N, D]`` unit norm.
        """
        step = max(1, len(self.descriptors) // _BACKGROUND)
        anything = descriptors @ self.descriptors[::step].T
        mean, deviation = anything.mean(1), anything.std(1).clamp_min(1e-6)
        found = []
        tile = max(1, _TILE_ELEMENTS // max(1, descriptors.numel()))
        for part in matrices.to(points).split(tile):
            moved = points @ part[:, :3, :3].mT + part[:, None, :3, 3]
            cells = self._cells(moved)
            inside = ((cells >= 0) & (cells < self.size)).all(-1)
            k, j, i = cells.clamp_min(0).minimum(self.size - 1).unbind(-1)
            where = self.index[k, j, i]
            there = inside & (where >= 0)
            similarity = (self.descriptors[where.clamp_min(0)] * descriptors).sum(-1)
            standard = ((similarity - mean) / deviation).clamp(-_CLIP, _CLIP)
            found.append((standard * there).mean(1))
        return torch.cat(found)

    def _cells(self, points: torch.Tensor) -> torch.Tensor:
        return torch.floor((points - self.origin) / self.spacing_mm).long()


@dataclass(frozen=True, eq=False)
class Evidence:
    """A field and the moving points that are held against it.

    Attributes:
        field: of the fixed image.
        points: ``[N, 3]`` RAS mm, moving.
        descriptors: ``[N, D]`` unit norm.
    """

    field: DescriptorField
    points: torch.Tensor
    descriptors: torch.Tensor

    def __call__(self, matrices: torch.Tensor) -> torch.Tensor:
        """Scores ``[H]`` of ``T_fixed_moving [H, 4, 4]``; a `ransac.Judge`."""
        return self.field.scores(matrices, self.points, self.descriptors)

    def part(self, mask: torch.Tensor) -> Evidence:
        """The same with some of the moving points, bool ``[N]``."""
        return Evidence(self.field, self.points[mask], self.descriptors[mask])

    def refined(self, matrix: Matrix, generator: torch.Generator) -> Matrix:
        """Climb from ``matrix`` (rigid) to the nearby transform of best score.

        Random rigid steps about the middle of the points, ever smaller; the mean of the best few
        is the next place to search around. Sampling needs no gradient of a lookup table.
        """
        centre = self.points.double().mean(0).cpu().numpy()
        order = torch.randperm(len(self.points), generator=generator)[:_REFINING]
        few = Evidence(self.field, self.points[order], self.descriptors[order])
        for translation_mm, angle_deg in _STEPS:
            noise = torch.randn(_TRIES, 6, generator=generator, dtype=torch.float64).numpy()
            noise[0] = 0
            turns = Rotation.from_rotvec(np.radians(angle_deg) * noise[:, :3]).as_matrix()
            tries = np.stack(
                [
                    transform.about(centre, turn, translation_mm * shift)
                    for turn, shift in zip(turns, noise[:, 3:], strict=True)
                ]
            )
            scores = few(torch.from_numpy(matrix @ tries)).cpu()
            best = scores.topk(_ELITE).indices.numpy()
            turn = Rotation.from_matrix(turns[best]).mean().as_matrix()
            shift = translation_mm * noise[best, 3:].mean(0)
            matrix = matrix @ transform.about(centre, turn, shift)
        return matrix
