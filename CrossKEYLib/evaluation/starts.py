"""Registration of one case from many misplaced starts: accuracy, precision, refusals, seconds.

    python -m CrossKEYLib.evaluation.starts --mri MR --ius US --landmarks PAIRS --model M.pt

The iUS is moved by a known random rigid transform about its centre, then registered with no
start given. Every outcome is written to a JSON file; the table is computed from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .. import transform
from ..landmark_files import read_landmark_pairs
from ..model import Model, pick_device
from ..registration import register
from ..transform import Matrix
from ..volume import Volume
from ..writing import write_json
from .metrics import landmark_fit, matching_precision, target_errors

LEVELS = {"0 / 0": (0, 0), "5 / 5": (5, 5), "10 / 10": (10, 10), "20 / 20": (20, 20)}
ARBITRARY = "arbitrary"
ARBITRARY_MM = 100.0
SUCCESS_MM = 3.0


def start_of(level: str, seed: int, centre: np.ndarray) -> Matrix:
    """The displacement (4x4, RAS mm) of one level and seed; "arbitrary" turns to any side."""
    rng = np.random.default_rng((seed, 2026))
    if level == ARBITRARY:
        return transform.arbitrary_rigid(rng, ARBITRARY_MM, centre)
    return transform.random_rigid(rng, *LEVELS[level], centre)


def run(
    mri: Volume,
    ius: Volume,
    landmarks: tuple[torch.Tensor, torch.Tensor],
    model: Model,
    seeds: Sequence[int],
    levels: Sequence[str] = (*LEVELS, ARBITRARY),
) -> list[dict]:
    """Register from every level and seed; plain values, one entry each."""
    outcomes = []
    for level in levels:
        for seed in seeds:
            start = start_of(level, seed, ius.centre_ras)
            fixed, moving = landmarks[0], transform.apply(start, landmarks[1])
            result = register(mri, ius.moved(start), model, seed=seed)
            tre = None
            if result.matrix is not None:
                tre = float(target_errors(result.matrix, fixed, moving).mean())
            outcomes.append(
                {
                    "level": level,
                    "seed": seed,
                    "start_tre_mm": float(target_errors(np.eye(4), fixed, moving).mean()),
                    "tre_mm": tre,
                    "precision": matching_precision(result, landmark_fit(fixed, moving)),
                    **result.report(),
                }
            )
            print(
                f"{level:>9} seed {seed}: TRE {tre if tre is None else round(tre, 2)} mm, "
                f"confidence {outcomes[-1]['confidence']:.2f}, "
                f"{outcomes[-1]['seconds']['total']:.1f} s",
                flush=True,
            )
    return outcomes


def table(outcomes: Sequence[dict]) -> str:
    """Markdown: one row per level. TRE over all starts, refused ones included."""
    rows = [
        "| start (mm / deg) | mean TRE before | mean TRE (± SD, median) | within 3 mm | "
        "precision 5 mm | refused | wrong but accepted | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for level in dict.fromkeys(o["level"] for o in outcomes):
        part = [o for o in outcomes if o["level"] == level]
        tre = np.array([np.nan if o["tre_mm"] is None else o["tre_mm"] for o in part])
        right = np.nan_to_num(tre, nan=np.inf) <= SUCCESS_MM
        accepted = np.array([o["accepted"] for o in part])
        before = np.mean([o["start_tre_mm"] for o in part])
        rows.append(
            f"| {level} | {before:.1f} mm | {np.nanmean(tre):.2f} ± {np.nanstd(tre):.2f} mm, "
            f"{np.nanmedian(tre):.2f} mm | {right.sum()} of {len(part)} | "
            f"{100 * np.mean([o['precision'] for o in part]):.0f} % | {(~accepted).sum()} | "
            f"{(accepted & ~right).sum()} | "
            f"{np.mean([o['seconds']['total'] for o in part]):.1f} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="starts", description=__doc__)
    parser.add_argument("--mri", required=True)
    parser.add_argument("--ius", required=True)
    parser.add_argument("--landmarks", required=True, nargs="+")
    parser.add_argument("--model", help="a patient's model; the bundled general one when missing")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    device = pick_device(args.device)
    outcomes = run(
        Volume.read(args.mri).to(device),
        Volume.read(args.ius).to(device),
        read_landmark_pairs(args.landmarks),
        Model.load(args.model).to(device),
        range(args.seeds),
    )
    write_json(outcomes, args.output)
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
