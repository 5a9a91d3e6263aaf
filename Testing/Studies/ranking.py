"""Which matches are right: those most alike, that stand out most, or that support each other?

    python -m Testing.Studies.ranking --case CASE24 CASE21 [--simulate 3 --mri HEAD.nii.gz ...]

Both images are described as they lie, every match that returns to its place is kept, and the best
of them are counted: ranked in each way that `matching.match` knows, and as registration chooses
among the best by ratio (`consensus.supported`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from CrossKEYLib.config import RegisterConfig
from CrossKEYLib.errors import InputError
from CrossKEYLib.estimation.consensus import supported
from CrossKEYLib.estimation.matching import Matches, match
from CrossKEYLib.estimation.target_error import landmark_fit
from CrossKEYLib.evaluation.cases import Case, find_case, real_cases, simulated_cases
from CrossKEYLib.evaluation.metrics import CLOSE_MM
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.brain import brain_mask
from CrossKEYLib.geometry.intensity import gamma_normalised, rescaled
from CrossKEYLib.keypoints.sampling import moving_points
from CrossKEYLib.models.patient import Model, describe_brain

COUNTS = (50, 100, 200, 500, 1000, 1500)
RANKS = ("similarity", "ratio")
SUPPORT = "support"


def ranked(case: Case, model: Model, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Whether each match of ``count`` points of the iUS is right, ``[K]`` bool, best first, for
    every entry of `RANKS` and `SUPPORT`.

    Raises:
        InputError: the case has no landmarks.
    """
    images, config = case.load(), RegisterConfig()
    if images.targets_fixed is None or images.targets_moving is None:
        raise InputError("the ranking of matches needs landmarks")
    truth = landmark_fit(images.targets_fixed, images.targets_moving)
    ius, generator = gamma_normalised(images.ius), torch.Generator().manual_seed(seed)
    points = moving_points(ius, count, generator)
    fixed = describe_brain(model, rescaled(images.mri), brain_mask(images.mri))
    moving = model.describe(ius, points, "ius")
    sides = fixed.descriptors, moving.descriptors, fixed.points, moving.points
    every = replace(config.match, max_matches=len(points))
    found = {rank: match(*sides, replace(every, rank=rank)) for rank in RANKS}
    best = match(*sides, config.match)
    whole = replace(config.consensus, share=1.0)
    found[SUPPORT] = supported(fixed.points, moving.points, best, whole)

    def right(matches: Matches) -> torch.Tensor:
        i, j = matches.indices.T
        error = (transform.apply(truth, moving.points[j].double()) - fixed.points[i]).norm(dim=1)
        return error < CLOSE_MM

    return {name: right(matches) for name, matches in found.items()}


def table(found: dict[str, dict[str, torch.Tensor]]) -> str:
    """Markdown: share of right matches among the best of each pair."""
    rows = [
        "| pair | ranked by | " + " | ".join(f"best {n}" for n in COUNTS) + " |",
        "|---" * (2 + len(COUNTS)) + "|",
    ]
    for pair, ways in found.items():
        for name, right in ways.items():
            shares = [f"{100 * float(right[:n].float().mean()):.0f} %" for n in COUNTS]
            rows.append(f"| {pair} | {name} | " + " | ".join(shares) + " |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ranking", description=__doc__)
    parser.add_argument(
        "--case", nargs="+", type=Path, default=[], help="folders of patients, see the benchmark"
    )
    parser.add_argument("--simulate", type=int, default=0, help="iUS simulated from each --mri")
    parser.add_argument("--mri", nargs="+", type=Path, default=[])
    parser.add_argument("--model", help="the bundled one when missing")
    parser.add_argument(
        "--points", type=int, default=RegisterConfig().moving_points, help="of the iUS"
    )
    args = parser.parse_args(arguments)
    cases = [case for folder in args.case for case in real_cases(*find_case(folder))]
    cases += simulated_cases(args.mri, args.simulate)
    model = Model.load(args.model)
    print(table({f"{case.mri}, {case.ius}": ranked(case, model, args.points) for case in cases}))


if __name__ == "__main__":
    main()
