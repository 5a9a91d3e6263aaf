"""One-shot landmarks and cross-contrast registration by the universal embedding.

    python -m Testing.Studies.landmarks --model uae.pt --output landmarks.json \
        --contrasts p26/T1.nii.gz p26/T2.nii.gz p26/FLAIR.nii.gz \
        --atlas ch2bet.nii.gz --labels aal.nii.gz --subject MNI152_T1.nii.gz

Three tasks, each with a truth: (1) random points of the first contrast found in the others, which
were turned, shifted and bent by a known deformation; (2) the centres of the atlas's regions found
in another head of the same linear space, turned and shifted by a known motion; (3) rigid
registration of the other contrasts, cut to half their field of view, 30 mm and 30 degrees away.
Every outcome is written to a JSON file; the tables are computed from that file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from CrossKEYLib.descriptors.uae import Embedding
from CrossKEYLib.errors import EstimationError, InputError
from CrossKEYLib.evaluation.peers.registry import PEERS
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.landmarks.embedding_registration import register_embedded
from CrossKEYLib.landmarks.propagate import locate_points
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.runtime.device import pick_device

METHODS = ("nearest", "fixed_point")
RIVALS = {"mutual information": "mi", "elastix": "elastix"}
MOTION = (15.0, 20.0)  # mm and degrees, of the images that landmarks are found in
BEND_MM, KNOT_MM = 4.0, 32.0  # deviation and knots of the smooth deformation
START = (30.0, 30.0)  # mm and degrees, of registration
POINTS = 60
SUCCESS_MM = 3.0


def deformed(volume: Volume, seed: int) -> tuple[Volume, Any]:
    """A volume turned, shifted and bent; and the function from its points to the volume's own."""
    rng = np.random.default_rng((seed, 26))
    motion = transform.random_rigid(rng, *MOTION, volume.centre_ras)
    corners = torch.as_tensor(volume.corners_ras(), dtype=torch.float32)
    moved = transform.apply(transform.invert(motion), corners).numpy()
    grid = Grid.around(moved, 1.0)
    knots = [int(n / KNOT_MM) + 2 for n in grid.shape]
    bend = torch.from_numpy(rng.normal(0, BEND_MM, (1, 3, *knots))).float()
    field = gaussian(
        F.interpolate(bend, grid.shape, mode="trilinear", align_corners=True)[0], KNOT_MM / 4
    )

    def back(points: torch.Tensor) -> torch.Tensor:
        shift = torch.stack([Volume(f, grid.ijk_to_ras).sample(points) for f in field], -1)
        return transform.apply(motion, points) + shift

    return Volume(volume.sample(back(grid.points())), grid.ijk_to_ras), back


def contrast_errors(contrasts: Sequence[tuple[str, Volume]], model: UniversalModel, seeds: int):
    """Task 1: outcomes, one per contrast, seed and method."""
    (first, here), others = contrasts[0], contrasts[1:]
    embedded, outcomes = model.embed(here), []
    for name, volume in others:
        for seed in range(seeds):
            there, back = deformed(volume, seed)
            inside = (gaussian((there.array > 0).float(), 2.0) > 0.99).nonzero()
            pick = torch.randperm(len(inside), generator=torch.Generator().manual_seed(seed))
            truth = there.points_ras(inside[pick[:POINTS]].float())
            points = back(truth)
            target = model.embed(there)
            task = f"{first} -> {name}, deformed"
            outcomes += _located(task, seed, embedded, target, points, truth)
    return outcomes


def atlas_errors(atlas: Volume, labels: Volume, subject: Volume, model: UniversalModel, seeds: int):
    """Task 2: outcomes, one per seed and method. Both heads lie in one linear space, so a region
    is expected at the same coordinates; what the heads differ by beyond that counts as error."""
    kinds = labels.array.round().long()
    centres = torch.stack(
        [
            labels.points_ras((kinds == kind).nonzero().float()).mean(0)
            for kind in kinds.unique().tolist()
            if kind > 0
        ]
    )
    embedded, outcomes = model.embed(atlas), []
    for seed in range(seeds):
        rng = np.random.default_rng((seed, 27))
        motion = transform.random_rigid(rng, *MOTION, subject.centre_ras)
        target = model.embed(subject.moved(motion))
        truth = transform.apply(motion, centres)
        task = f"{len(centres)} atlas centres -> other head"
        outcomes += _located(task, seed, embedded, target, centres, truth)
    return outcomes


def _located(
    task: str,
    seed: int,
    here: Embedding,
    there: Embedding,
    points: torch.Tensor,
    truth: torch.Tensor,
) -> list[dict[str, Any]]:
    """One outcome for each method: ``points [N, 3]`` found, against the truth (RAS mm)."""
    outcomes = []
    for method in METHODS:
        start = time.perf_counter()
        found = locate_points(here, there, points, method=method)
        outcomes.append(
            {
                "task": task,
                "method": method,
                "seed": seed,
                "errors_mm": (found.points - truth).norm(dim=1).tolist(),
                "spreads_mm": found.spreads.tolist(),
                "seconds": time.perf_counter() - start,
            }
        )
    return outcomes


def halved(volume: Volume, rng: np.random.Generator, share: float = 0.5) -> Volume:
    """Emptied beyond a random plane, so that ``share`` of what it shows is left, and where it is
    below zero, as resampling left the air around it."""
    points = Grid.of(volume).points()
    normal = rng.normal(size=3)
    across = points @ torch.as_tensor(normal / np.linalg.norm(normal), dtype=torch.float32)
    edge = across[volume.array > 0].quantile(share)
    return volume.replaced(torch.where(across > edge, 0, volume.array.clamp_min(0)))


def registration_errors(
    contrasts: Sequence[tuple[str, Volume]], model: UniversalModel, seeds: int
) -> list[dict]:
    """Task 3: outcomes, one per contrast, seed and method."""
    first, fixed = contrasts[0]
    outcomes = []
    for name, volume in contrasts[1:]:
        for seed in range(seeds):
            rng = np.random.default_rng((seed, 28))
            part = halved(volume, rng)
            inside = (part.array > 0).nonzero()[::997]
            truth = transform.random_rigid(rng, *START, part.centre_ras)
            moving, points = part.moved(truth), part.points_ras(inside.float())
            for method in ("embedding", *_rivals()):
                start = time.perf_counter()
                matrix = _registered(method, fixed, moving, model, seed)
                seconds = time.perf_counter() - start
                error = None
                if matrix is not None:
                    back = transform.apply(matrix @ truth, points)
                    error = float((back - points).norm(dim=1).mean())
                outcomes.append(
                    {
                        "task": f"register half of {name} to {first}",
                        "method": method,
                        "seed": seed,
                        "tre_mm": error,
                        "seconds": seconds,
                    }
                )
                print(f"{name} seed {seed} {method}: {error} mm, {seconds:.1f} s", flush=True)
    return outcomes


def _registered(
    method: str, fixed: Volume, moving: Volume, model: UniversalModel, seed: int
) -> Matrix | None:
    if method == "embedding":
        return register_embedded(fixed, moving, model, seed=seed).matrix
    try:
        return PEERS[RIVALS[method]].register(fixed, moving, seed)
    except EstimationError:  # it lost the image
        return None


def _rivals() -> list[str]:
    """Those whose package is installed."""
    found = []
    for method, name in RIVALS.items():
        with suppress(InputError):
            PEERS[name].check()
            found.append(method)
    return found


def table(outcomes: Sequence[dict]) -> str:
    """Markdown: errors over all points and seeds, or success over all starts."""
    rows = [
        "| task | method | mean | median | 95 % | within 3 mm | seconds |",
        "|---|---" * 3 + "|---|",
    ]
    for task, method in dict.fromkeys((o["task"], o["method"]) for o in outcomes):
        part = [o for o in outcomes if (o["task"], o["method"]) == (task, method)]
        if "errors_mm" in part[0]:
            errors = np.concatenate([o["errors_mm"] for o in part])
        else:
            errors = np.array([np.inf if o["tre_mm"] is None else o["tre_mm"] for o in part])
        near = f"{100 * (errors <= SUCCESS_MM).mean():.0f} % of {len(errors)}"
        figures = (errors.mean(), np.median(errors), np.quantile(errors, 0.95, method="higher"))
        rows.append(
            f"| {task} | {method} | "
            + " | ".join(f"{figure:.2f} mm" for figure in figures)
            + f" | {near} | {np.mean([o['seconds'] for o in part]):.1f} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="landmarks", description=__doc__)
    parser.add_argument("--model", help="universal embedding; the bundled one when missing")
    parser.add_argument("--contrasts", nargs="+", type=Path, default=[], help="of one patient")
    parser.add_argument("--atlas", type=Path)
    parser.add_argument("--labels", type=Path, help="of the atlas")
    parser.add_argument("--subject", type=Path, help="another head in the atlas's space")
    parser.add_argument("--seeds", type=int, default=3, help="deformations of each task")
    parser.add_argument("--starts", type=int, default=10, help="of registration, per contrast")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    model = UniversalModel.load(args.model).to(pick_device(args.device))
    contrasts = [(path.name.split(".")[0], Volume.read(path)) for path in args.contrasts]
    outcomes: list[dict] = []
    if len(contrasts) > 1:
        outcomes += contrast_errors(contrasts, model, args.seeds)
    if args.atlas and args.labels and args.subject:
        atlas, labels, subject = map(Volume.read, (args.atlas, args.labels, args.subject))
        outcomes += atlas_errors(atlas, labels, subject, model, args.seeds)
    if outcomes:
        print(table(outcomes), flush=True)
    if len(contrasts) > 1:
        outcomes += registration_errors(contrasts, model, args.starts)
    write_json(outcomes, args.output)
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
