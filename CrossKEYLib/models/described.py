"""Points of one image with their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Described:
    """Points of one image with their descriptors.

    Attributes:
        points: ``[N, 3]`` RAS mm.
        descriptors: ``[N, D]`` unit norm.
    """

    points: torch.Tensor
    descriptors: torch.Tensor

    def where(self, kept: torch.Tensor) -> Described:
        """Only the points that a bool ``[N]`` selects."""
        return Described(self.points[kept], self.descriptors[kept])

    def __len__(self) -> int:
        return len(self.points)
