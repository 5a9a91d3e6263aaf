"""Landmarks between all contrasts of a head, however it lies and whatever of it is shown.

    python -m Testing.Studies.landmark_poses --output poses.json --rival \
        --head cstar-stroke/T1.nii.gz cstar-stroke/T2.nii.gz cstar-stroke/FLAIR.nii.gz \
        --head brats2021-00031/T1POST.nii.gz brats2021-00031/FLAIR.nii.gz

The images of one head have to lie in one world. Random points of each image are found in each image
that is named after it, as it lies, turned by 25 and by 180 degrees about a random axis, and cut to
half and to a third at a random plane. Every outcome is written to a JSON file, from which the table
is computed: errors of the points that are there, how often the word "good" is said and right, and
how often "absent" is said of points that were cut away and of points that are there. With
``--rival`` points are also carried by a rigid registration by mutual information. A run that was
interrupted goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CrossKEYLib.config import LandmarkMethod
from CrossKEYLib.descriptors.uae import Embedding
from CrossKEYLib.errors import EstimationError
from CrossKEYLib.evaluation.peers.registry import PEERS
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.foreground import shown, shown_points
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.landmarks.propagate import embedded_pair
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.runtime.device import pick_device

from .landmarks import halved

METHODS: tuple[LandmarkMethod, ...] = ("nearest", "fixed_point")
RIVAL = "mutual information"
POSES = {  # degrees that it is turned by, and share that is shown
    "as it lies": (0.0, 1.0),
    "turned by 25": (25.0, 1.0),
    "turned by 180": (180.0, 1.0),
    "half of it": (0.0, 0.5),
    "a third of it": (0.0, 1 / 3),
}
SHIFT_MM = 10.0
RIGHT_MM = 2.0  # of a good point
RIM_MM = 4.0  # points so near to the cut are neither there nor gone


class Study:
    """What was measured, kept in a file from which an interrupted run goes on.

    Args:
        output: JSON with every outcome.
        model: universal embedding.
        points: of each pair of images.
        seed: of points and poses.
        rival: whether to register by mutual information too.
    """

    def __init__(
        self, output: Path, model: UniversalModel, points: int, seed: int, rival: bool
    ) -> None:
        self.output, self.model, self.points, self.seed = output, model, points, seed
        self.rival = rival
        self.outcomes: list[dict[str, Any]] = []
        if output.exists():
            self.outcomes = json.loads(output.read_text())
        self._embedded: dict[Path, Embedding] = {}

    def measure(self, paths: Sequence[Path]) -> None:
        """All pairs of images of one head, in the order in which they are named."""
        device = next(self.model.network.parameters()).device
        self._embedded.clear()
        images = {path: Volume.read(path).to(device) for path in paths}
        for first, second in combinations(paths, 2):
            here, other = images[first], images[second]
            truth = shown_points(here, 4 * self.points, self.seed)
            in_both = other.replaced(shown(other).float()).sample(truth) > 0.5
            truth = truth[in_both][: self.points]
            for number, (pose, (angle, share)) in enumerate(POSES.items()):
                rng = np.random.default_rng((self.seed, number))
                motion = transform.random_rigid(
                    rng, SHIFT_MM if angle else 0.0, angle, other.centre_ras
                )
                task = {
                    "head": first.parent.name,
                    "task": f"{_name(first)} -> {_name(second)}, {pose}",
                    "pose": pose,
                    "seed": self.seed,
                    "model": self.model.name,
                }
                seen = other if share == 1.0 else halved(other, rng, share)
                there = shown_or_cut(seen, other, truth)
                for found in self._found(first, here, seen, truth, motion, task):
                    self.outcomes.append({**task, "there": there, **found})
                    write_json(self.outcomes, self.output)

    def _found(
        self,
        first: Path,
        here: Volume,
        seen: Volume,
        truth: torch.Tensor,
        motion: Matrix,
        task: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """What each method that was not asked yet makes of one pair of images in one pose."""
        moved, wanted = seen.moved(motion), transform.apply(motion, truth)
        done = {o["method"] for o in self.outcomes if task.items() <= o.items()}
        if not done.issuperset(METHODS):
            if first not in self._embedded:
                self._embedded[first] = self.model.embed(here)
            start = time.perf_counter()
            pair = embedded_pair(here, moved, self.model, here=self._embedded[first])
            report, seconds = pair.pose.report(), time.perf_counter() - start
            print(f"{task['head']} {task['task']}: {seconds:.0f} s", flush=True)
            for method in METHODS:
                if method in done:
                    continue
                located = pair.locate(truth, method)
                yield {
                    "method": method,
                    "errors_mm": (located.points - wanted).norm(dim=1).tolist(),
                    "found": located.found,
                    "why": located.why,
                    "scores": located.scores.tolist(),
                    "spreads_mm": located.spreads.tolist(),
                    "pose_report": report,
                    "seconds": seconds,
                }
        if self.rival and RIVAL not in done:
            start = time.perf_counter()
            matrix = registered_by_mutual_information(here, moved, self.seed)
            ends = transform.apply(transform.invert(matrix), truth)
            yield {
                "method": RIVAL,
                "errors_mm": (ends - wanted).norm(dim=1).tolist(),
                "found": [""] * len(truth),
                "seconds": time.perf_counter() - start,
            }


def registered_by_mutual_information(fixed: Volume, moving: Volume, seed: int) -> Matrix:
    """``T_fixed_moving``; where it loses the image, none is a motion of nothing."""
    try:
        return PEERS["mi"].register(fixed, moving, seed)
    except EstimationError:
        return np.eye(4)


def _name(path: Path) -> str:
    return path.name.split(".")[0]


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
            + (
                " | says nothing | | |"
                if method == RIVAL
                else f" | {_share(good[shown_there])}, {_share(errors[good] <= RIGHT_MM)}"
                f" | {_share(words[shown_there] == 'absent')} | {_share(words[gone] == 'absent')} |"
            )
        )
    return "\n".join(rows)


def _share(values: np.ndarray) -> str:
    return f"{100 * values.mean():.0f} % of {len(values)}" if len(values) else "none"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="landmark_poses", description=__doc__)
    parser.add_argument("--model", help="universal embedding; the bundled one when missing")
    parser.add_argument("--head", nargs="+", type=Path, action="append", required=True)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--rival", action="store_true", help="mutual information too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    model = UniversalModel.load(args.model).to(pick_device(args.device))
    study = Study(args.output, model, args.points, args.seed, args.rival)
    for paths in args.head:
        study.measure(paths)
    print(table(study.outcomes))


if __name__ == "__main__":
    main()
