"""Where results lie against the best rigid fit to the landmarks: the same way, or scattered?

    python -m Testing.Studies.offsets --outcomes OUT/outcomes.json --ius US --landmarks TAG

Reads what `crosskey benchmark` wrote. Results that scatter are a method's own noise. Results of
methods that share nothing, all off the same way, say that landmarks and image disagree: tissue has
changed shape, or the landmarks cover too little of the image to fix a rotation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.estimation.kabsch import kabsch
from CrossKEYLib.evaluation.benchmark import read_outcomes
from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume

WITHIN_MM = 3.0  # results farther off are failures, and say nothing of this


def offsets(
    outcomes: Sequence[dict[str, Any]], ius: Volume, fixed: torch.Tensor, moving: torch.Tensor
) -> dict[tuple[str, str], np.ndarray]:
    """Of every result within `WITHIN_MM`, by MRI and method: ``[N, 6]``, rotation vector (degrees)
    and shift of the landmarks' middle (mm) from the best fit to the landmarks, along R, A, S.

    Args:
        outcomes: of `crosskey benchmark`.
        ius: as it lay before it was misplaced.
        fixed, moving: landmark pairs ``[K, 3]``, RAS mm.
    """
    ones = torch.ones(len(fixed), dtype=torch.float64)
    best = kabsch(fixed.double(), moving.double(), ones).numpy()
    middle = fixed.double().mean(0).numpy()
    found = defaultdict(list)
    for outcome in outcomes:
        error, matrix = outcome.get("tre_mm"), outcome.get("matrix_ras")
        if matrix is None or error is None or error > WITHIN_MM:
            continue
        start = start_of(outcome["level"], outcome["seed"], ius.centre_ras)
        off = _off(np.array(matrix) @ start, best, middle)
        found[outcome["mri"], outcome["method"]].append(off)
    return {key: np.array(rows) for key, rows in found.items()}


def _off(matrix: Matrix, best: Matrix, middle: np.ndarray) -> np.ndarray:
    rest = matrix @ transform.invert(best)
    turn = Rotation.from_matrix(rest[:3, :3]).as_rotvec(degrees=True)
    return np.concatenate([turn, rest[:3, :3] @ middle + rest[:3, 3] - middle])


def table(found: dict[tuple[str, str], np.ndarray]) -> str:
    """Markdown: mean ± standard deviation along R, A, S."""
    rows = ["| MRI | method | results | turned by, degrees | shifted by, mm |", "|---" * 5 + "|"]
    for (mri, method), values in sorted(found.items()):
        mean, spread = values.mean(0), values.std(0)
        shown = [f"{m:+.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True)]
        turned, shifted = ", ".join(shown[:3]), ", ".join(shown[3:])
        rows.append(f"| {mri} | {method} | {len(values)} | {turned} | {shifted} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--ius", type=Path, required=True)
    parser.add_argument("--landmarks", nargs="+", type=Path, required=True)
    args = parser.parse_args(arguments)
    fixed, moving = read_landmark_pairs(args.landmarks)
    spread = (moving - moving.mean(0)).double()
    sizes = torch.linalg.svdvals(spread) / len(moving) ** 0.5
    print(
        f"{len(moving)} landmarks, standard deviation along their axes "
        + " x ".join(f"{size:.1f}" for size in sizes.tolist())
        + " mm\n"
    )
    outcomes = read_outcomes(args.outcomes)["outcomes"]
    print(table(offsets(outcomes, Volume.read(args.ius), fixed, moving)))


if __name__ == "__main__":
    main()
