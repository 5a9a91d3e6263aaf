"""Landmarks in every contrast of a head, however it lies and whatever of it is shown.

    python -m Testing.Studies.landmark_poses --output poses.json \
        --head cstar-stroke/T1.nii.gz cstar-stroke/FLAIR.nii.gz \
        --head brats2021-00031/T1POST.nii.gz brats2021-00031/FLAIR.nii.gz

The images of one head have to lie in one world. Random points of the first image are found in each
of the others, as it lies, turned by 25 and by 180 degrees about a random axis, and cut to half at a
random plane. Every outcome is written to a JSON file, from which the tables are computed: errors
of the points that are there, how often the word "good" is said and right, and how often "absent" is
said of points that were cut away and of points that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CrossKEYLib.config import LandmarkMethod
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.foreground import shown, shown_points
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.landmarks.propagate import embedded_pair
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.runtime.device import pick_device

from .landmarks import halved

METHODS: tuple[LandmarkMethod, ...] = ("nearest", "fixed_point")
POSES = {"as it lies": 0.0, "turned by 25": 25.0, "turned by 180": 180.0, "half of it": 0.0}
SHIFT_MM = 10.0
RIGHT_MM = 2.0  # of a good point
RIM_MM = 4.0  # points so near to the cut are neither there nor gone


def outcomes_of(paths: Sequence[Path], model: UniversalModel, points: int, seed: int) -> list[Any]:
    """One outcome for each of the other images, pose and method."""
    device = next(model.network.parameters()).device
    here, *others = (Volume.read(path).to(device) for path in paths)
    head, first = paths[0].parent.name, paths[0].name.split(".")[0]
    embedded, found = model.embed(here), []
    for path, other in zip(paths[1:], others, strict=True):
        truth = shown_points(here, 4 * points, seed)
        truth = truth[other.replaced(shown(other).float()).sample(truth) > 0.5][:points]
        for number, (pose, angle) in enumerate(POSES.items()):
            rng = np.random.default_rng((seed, number))
            motion = transform.random_rigid(
                rng, SHIFT_MM if angle else 0.0, angle, other.centre_ras
            )
            seen = halved(other, rng) if pose == "half of it" else other
            there = shown_or_cut(seen, other, truth)
            start = time.perf_counter()
            pair = embedded_pair(here, seen.moved(motion), model, here=embedded)
            prepared = time.perf_counter() - start
            for method in METHODS:
                located = pair.locate(truth, method)
                away = (located.points - transform.apply(motion, truth)).norm(dim=1)
                task = f"{first} -> {path.name.split('.')[0]}, {pose}"
                found.append(
                    {
                        "head": head,
                        "task": task,
                        "pose": pose,
                        "method": method,
                        "errors_mm": away.tolist(),
                        "found": located.found,
                        "there": there,
                        "pose_report": located.pose.report(),
                        "seconds": prepared,
                    }
                )
            print(f"{head} {task}: {prepared:.0f} s", flush=True)
    return found


def shown_or_cut(seen: Volume, whole: Volume, points: torch.Tensor) -> list[bool | None]:
    """Whether each point is shown; None near the cut."""
    if seen is whole:
        return [True] * len(points)
    kept = Volume((seen.array > 0).float(), seen.ijk_to_ras)
    ball = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    ball = RIM_MM * ball / ball.norm(dim=1, keepdim=True)
    share = kept.sample(points[:, None] + ball.to(points)).mean(1)
    return [True if x > 0.95 else False if x < 0.05 else None for x in share.tolist()]


def table(outcomes: Sequence[dict[str, Any]]) -> str:
    """Markdown, one row for each pose and method over all heads and contrasts."""
    rows = [
        "| pose | method | mean | median | 95 % | called good, of these right | "
        "there, called absent | gone, called absent |",
        "|---" * 8 + "|",
    ]
    for pose, method in dict.fromkeys((o["pose"], o["method"]) for o in outcomes):
        part = [o for o in outcomes if (o["pose"], o["method"]) == (pose, method)]
        errors = np.concatenate([o["errors_mm"] for o in part])
        words = np.concatenate([o["found"] for o in part])
        there = np.array([x for o in part for x in o["there"]], dtype=object)
        shown_there, gone = there == True, there == False  # noqa: E712  (None is neither)
        away, good = errors[shown_there], (words == "good") & shown_there
        figures = (away.mean(), np.median(away), np.quantile(away, 0.95, method="higher"))
        rows.append(
            f"| {pose} | {method} | "
            + " | ".join(f"{figure:.2f} mm" for figure in figures)
            + f" | {_share(good[shown_there])}, {_share(errors[good] <= RIGHT_MM)}"
            + f" | {_share(words[shown_there] == 'absent')} | {_share(words[gone] == 'absent')} |"
        )
    return "\n".join(rows)


def _share(values: np.ndarray) -> str:
    return f"{100 * values.mean():.0f} % of {len(values)}" if len(values) else "none"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="landmark_poses", description=__doc__)
    parser.add_argument("--model", help="universal embedding; the bundled one when missing")
    parser.add_argument("--head", nargs="+", type=Path, action="append", required=True)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    model = UniversalModel.load(args.model).to(pick_device(args.device))
    outcomes: list[dict[str, Any]] = []
    for paths in args.head:
        outcomes += outcomes_of(paths, model, args.points, args.seed)
        write_json(outcomes, args.output)
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
