"""What an embedded image holds to be compared: points and one vector for each."""

from __future__ import annotations

import torch

from ..config import LandmarkConfig
from ..descriptors.uae import Embedding
from ..geometry.transform import apply
from ..models.described import Described


def vectors(embedding: Embedding, points: torch.Tensor, config: LandmarkConfig) -> torch.Tensor:
    """One unit vector ``[N, D]`` for each point; its cosine is the weighted mean of the heads'."""
    weights = torch.tensor([config.fine_weight, config.coarse_weight, config.semantic_weight])
    roots = (weights / weights.sum()).sqrt().tolist()
    heads = zip(embedding.at(points), roots, strict=True)
    return torch.cat([root * head for head, root in heads if root > 0], 1)


def places(embedding: Embedding, config: LandmarkConfig) -> Described:
    """All cells of the fine head within the image, described."""
    kji = embedding.filled.nonzero().float()
    points = apply(embedding.affine(2), kji.flip(1))
    parts = [vectors(embedding, part, config) for part in points.split(200_000)]
    return Described(points, torch.cat(parts))


def thinned(table: Described, spacing_mm: float) -> Described:
    """One place per cube of ``spacing_mm``."""
    cubes = torch.floor(table.points / spacing_mm).long()
    cubes = cubes - cubes.amin(0)
    size = cubes.amax(0) + 1
    key = (cubes[:, 0] * size[1] + cubes[:, 1]) * size[2] + cubes[:, 2]
    order = key.argsort(stable=True)
    first = torch.ones(len(key), dtype=torch.bool, device=key.device)
    first[1:] = key[order][1:] != key[order][:-1]
    kept = order[first]
    return Described(table.points[kept], table.descriptors[kept])
