"""How well all described points agree with a transform, not only the best matches.

Matching keeps one fixed point for each moving point and discards all other similarities. Even where
most matches are wrong, descriptors distinguish right from wrong positions on average: at the true
transform, the similarity between a point of the iUS and the point of the MRI on which it lands is
raised for nearly all points. The sum over thousands of points identifies the true transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..runtime.precision import short_products

_STEPS = ((3.0, 4.0), (2.0, 2.5), (1.2, 1.5), (0.8, 1.0), (0.5, 0.6), (0.3, 0.4))  # mm, degrees
_TRIES = 160  # per step
_ELITE = 10  # of the tries, averaged
_TABLE_ELEMENTS = 250_000_000  # similarities kept, a byte each
_TILE_ELEMENTS = 2_000_000  # positions looked up, or similarities computed, at once
_CLIP = 4.0  # standard scores are clipped to this
_LEVELS = 31  # to one standard deviation, so that the clipped scores fit into a byte


class DescriptorGrid:
    """Described points of the fixed image in a grid, looked up by position.

    Args:
        points: ``[M, 3]`` RAS mm, at least ``spacing_mm`` from each other.
        descriptors: ``[M, D]`` unit norm.
        spacing_mm: edge of a cell; a position takes the descriptor of the point in its cell.
    """

    def __init__(
        self, points: torch.Tensor, descriptors: torch.Tensor, spacing_mm: float = 2.0
    ) -> None:
        self.descriptors = descriptors
        self.spacing_mm = spacing_mm
        self.origin = points.amin(0) - 1.5 * spacing_mm
        cells = self.cells(points)
        self.last = cells.amax(0) + 1  # the first and last cells along each axis stay empty
        size, device = tuple((self.last + 1).tolist()), points.device
        self.index = torch.full(size, len(points), dtype=torch.int32, device=device)
        self.index[tuple(cells.T)] = torch.arange(len(points), dtype=torch.int32, device=device)

    def cells(self, points: torch.Tensor) -> torch.Tensor:
        """Cell ``[..., 3]`` of RAS ``points [..., 3]``; outside of the grid it may be negative."""
        return torch.floor((points - self.origin) / self.spacing_mm).long()

    def landing(self, points: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """Index ``[N, H]`` (int32) of the described point on which each ``T_fixed_moving
        [H, 4, 4]`` puts each moving point ``[N, 3]``; M where there is none. Equal to `lookup` of
        the moved points, but faster."""
        into = torch.eye(4, dtype=torch.float64) / self.spacing_mm
        into[:3, 3] = -self.origin.double().cpu() / self.spacing_mm
        maps = (into @ matrices.cpu().double())[:, :3].permute(2, 1, 0).flatten(1).to(points)
        places = torch.addmm(maps[3], points, maps[:3]).view(len(points), 3, -1)
        return self._found(places.unbind(1))

    def lookup(self, points: torch.Tensor) -> torch.Tensor:
        """Index ``[...]`` of the described point at RAS ``points [..., 3]``; M where there is
        none."""
        return self._found(((points - self.origin) / self.spacing_mm).unbind(-1)).long()

    def _found(self, places: Sequence[torch.Tensor]) -> torch.Tensor:
        """Index (int32) of the described point at positions in cells, along k, j and i."""
        # Cells below zero are mapped to the first cell, which is empty like the last.
        k, j, i = (
            place.clamp(0, last).int()
            for place, last in zip(places, self.last.tolist(), strict=True)
        )
        _, size_j, size_i = self.index.shape
        cells = k.mul_(size_j).add_(j).mul_(size_i).add_(i)
        return self.index.flatten().index_select(0, cells.flatten()).view(cells.shape)

    def similarity(self, descriptor: torch.Tensor) -> Volume:
        """Cosine similarity, -1 to 1, of every described point with ``descriptor [D]`` (unit norm),
        as an image of one voxel per cell; 0 where there is no described point."""
        values = F.pad(self.descriptors @ descriptor, (0, 1))
        edge, origin = self.spacing_mm, self.origin.cpu().double().numpy()
        centred = transform.from_parts(edge * np.eye(3), origin + edge / 2)
        return Volume(values[self.index.long()].permute(2, 1, 0), centred)


class DescriptorScore:
    """Scores transforms by how well the descriptors of moving points agree with a grid.

    All similarities between moving and fixed points are computed once, here; scoring a transform
    only reads them. They are standardised for each moving point over the fixed image, so that the
    expected score of a random transform is zero.

    Args:
        grid: of the fixed image.
        points: ``[N, 3]`` RAS mm, moving; thinned evenly if their table would be too large.
        descriptors: ``[N, D]`` unit norm.
    """

    def __init__(
        self, grid: DescriptorGrid, points: torch.Tensor, descriptors: torch.Tensor
    ) -> None:
        count = len(grid.descriptors)
        stride = max(1, -(-len(points) * count // _TABLE_ELEMENTS))
        self.grid, self.points = grid, points[::stride]
        self.rows = torch.arange(len(self.points), dtype=torch.int32, device=points.device)
        size = (len(self.points), count + 1)  # the last column: where no point is
        self.table = torch.empty(size, dtype=torch.int8, device=points.device)
        self.table[:, -1] = 0
        descriptors = descriptors[::stride]
        # Mean and variance of a point's similarities follow from two moments of the fixed side.
        mean = descriptors @ grid.descriptors.mean(0)
        second = grid.descriptors.T @ grid.descriptors / count
        variance = ((descriptors @ second) * descriptors).sum(1) - mean.square()
        scale = _LEVELS * variance.clamp_min(1e-12).rsqrt()
        scaled, shift, most = descriptors * scale[:, None], mean * scale, _CLIP * _LEVELS
        step = max(1, min(count, _TILE_ELEMENTS // len(self.points)))
        room = scaled.new_empty(len(scaled) * step)  # for one tile after the other
        for start in range(0, count, step):
            part = grid.descriptors[start : start + step]
            tile = room[: len(scaled) * len(part)].view(len(scaled), len(part))
            with short_products():
                similarity = torch.addmm(shift[:, None], scaled, part.T, beta=-1, out=tile)
            self.table[:, start : start + len(part)] = similarity.clamp_(-most, most).round_()

    def __call__(self, matrices: torch.Tensor) -> torch.Tensor:
        """Mean standard score ``[H]`` of the points under ``T_fixed_moving [H, 4, 4]`` (RAS mm);
        points that land on no fixed point count zero. A `ransac.Scorer`."""
        offsets, table, found = self.rows * self.table.shape[1], self.table.flatten(), []
        for part in matrices.split(max(1, _TILE_ELEMENTS // len(self.points))):
            # Point by point, so that the row of a point is read at once.
            places = self.grid.landing(self.points, part) + offsets[:, None]
            levels = table.index_select(0, places.flatten()).view(places.shape)
            found.append(levels.float().mean(0) / _LEVELS)
        return torch.cat(found)

    def at(self, matrix: Matrix) -> float:
        """The score of one transform."""
        return float(self(torch.from_numpy(matrix)[None]))

    def part(self, mask: torch.Tensor) -> DescriptorScore:
        """The same for the moving points that a bool ``[N]`` selects."""
        part = copy(self)
        part.points, part.rows = self.points[mask], self.rows[mask]
        return part

    def refined(self, matrix: Matrix, generator: torch.Generator) -> Matrix:
        """The transform with the best score near ``matrix`` (rigid).

        Random search: rigid steps about the middle of the points, smaller each time; the next
        search starts at the mean of the best few. This needs no gradient of the lookup table.
        """
        centre = self.points.double().mean(0).cpu().numpy()
        for translation_mm, angle_deg in _STEPS:
            noise = torch.randn(_TRIES, 6, generator=generator, dtype=torch.float64).numpy()
            noise[0] = 0
            tries = transform.perturbations_about(centre, noise, translation_mm, angle_deg)
            scores = self(torch.from_numpy(matrix @ tries)).cpu()
            best = scores.topk(_ELITE).indices.numpy()
            turn = Rotation.from_matrix(tries[best, :3, :3]).mean().as_matrix()
            shift = translation_mm * noise[best, 3:].mean(0)
            matrix = matrix @ transform.about(centre, turn, shift)
        return matrix
