"""Keypoints: position, scale, score and orientation."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Keypoints:
    """``points [N, 3]`` RAS mm, ``scales [N]`` mm, ``scores [N]`` (higher is more salient),
    ``orientations [N, 3, 3]`` (columns: local axes in RAS)."""

    points: torch.Tensor
    scales: torch.Tensor
    scores: torch.Tensor
    orientations: torch.Tensor

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: torch.Tensor | slice) -> Keypoints:
        """Keypoints at ``index`` (boolean mask, integer indices or a slice)."""
        return Keypoints(
            self.points[index], self.scales[index], self.scores[index], self.orientations[index]
        )


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """All distances ``[N, M]`` between points ``[N, 3]`` and ``[M, 3]``.

    By differences: the faster product formula of `torch.cdist` loses tenths of a millimetre
    a few hundred millimetres from the origin.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
