"""How well a model matches real ultrasound to MRI, measured as published."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError, ModelError
from ...estimation.matching import match
from ...geometry.volume import Grid, Volume
from ...models.patient import Model
from ...registration.keypoint_matching import counted
from .config import PublishedConfig
from .data import Case, build_case, draw, find_cases, read_scaled

IUS_INSIDE = 0.9  # of a patch around a tested iUS point within the field of view, as released


def evaluate(
    config: Path,
    data_dir: Path,
    checkpoint: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Match every real ultrasound in ``img/us`` with its MRI in ``img/mr``.

    MRI points are drawn from the keypoint heatmap, iUS points lie on a regular grid, both with
    enough of their patch in the field of view. Headers say how the images lie to each other.

    Args:
        config: YAML, see `PublishedConfig`.
        data_dir: see `published_data`.
        checkpoint: any file `Model.load` reads; ``model.checkpoint_path`` of the YAML when None.
        device: where to compute.
        seed: of the points drawn.
        progress: called with what is done, while patches are described.

    Returns:
        Plain values: ``cases`` (one entry per pair of MRI and iUS), and mean and standard
        deviation over them of ``precision`` (share of the matches within
        ``evaluation.max_distance`` mm; 0 without matches) and ``matching_score`` (matches over
        MRI points). The deviation is None for a single pair.

    Raises:
        InputError: settings or images that cannot be used.
        ModelError: no checkpoint, or one that cannot be used.
    """
    settings = PublishedConfig.read(config)
    path = checkpoint or settings.model.checkpoint_path
    if path is None:
        raise ModelError(f"{config}: give a checkpoint, or its path as model.checkpoint_path")
    device = torch.device(device)
    model = Model.load(path).to(device)
    rows = []
    for files in find_cases(data_dir, "us"):
        synthetic = read_scaled(files.synthetic, device)
        for mri_path, ius_path in ((m, u) for u in files.real for m in files.mri):
            mri, ius = read_scaled([mri_path], device), read_scaled([ius_path], device)
            size, share = settings.data.patch_size, settings.data.min_inside
            case = build_case(files.name, mri, ius, size, share, synthetic)
            names = {"case": files.name, "mri": mri_path.name, "ius": ius_path.name}
            rows.append({**names, **_matched(model, case, settings, seed, progress)})
    summary = {
        name: _spread([row[name] for row in rows]) for name in ("precision", "matching_score")
    }
    limit = settings.evaluation.max_distance
    return {"checkpoint": str(path), "max_distance_mm": limit, **summary, "cases": rows}


def _matched(
    model: Model,
    case: Case,
    settings: PublishedConfig,
    seed: int,
    progress: Callable[[str], None] | None,
) -> dict[str, float | int]:
    """Match one pair of images, and count what is right."""
    evaluation, data = settings.evaluation, settings.data
    generator = torch.Generator().manual_seed(seed)
    fixed, _ = draw(case, data.num_samples, generator, data.min_distance, data.min_inside)
    moving = _grid_points(case.inside[0], data.grid_spacing)
    described_fixed, described_moving = (
        model.describe(
            image,
            points,
            modality,
            report=counted(f"{name} descriptors", progress or (lambda text: None)),
        ).descriptors
        for image, points, modality, name in (
            (case.mri[0], fixed, "mri", "MRI"),
            (case.ius[0], moving, "ius", "iUS"),
        )
    )
    matches = match(described_fixed, described_moving, fixed, moving, settings.matching())
    i, j = matches.indices.T
    near = (described_fixed[i] - described_moving[j]).norm(dim=1) <= evaluation.distance_threshold
    i, j = i[near], j[near]
    correct = int(((fixed[i] - moving[j]).norm(dim=1) <= evaluation.max_distance).sum())
    return {
        "mri_points": len(fixed),
        "ius_points": len(moving),
        "matches": len(i),
        "correct": correct,
        "precision": correct / max(len(i), 1),
        "matching_score": len(i) / max(len(fixed), 1),
    }


def _grid_points(inside: Volume, spacing_mm: float) -> torch.Tensor:
    points = Grid.around(inside.corners_ras(), spacing_mm).points(inside.device).reshape(-1, 3)
    points = points[inside.sample(points) >= IUS_INSIDE]
    if len(points) == 0:
        raise InputError(
            "the ultrasound's field of view holds no whole patch; lower data.patch_size"
        )
    return points


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread}
