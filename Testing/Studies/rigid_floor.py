"""What a rigid registration can reach at all, from landmark pairs alone: no image is needed.

    python -m Testing.Studies.rigid_floor CASE/*.tag

Expert landmarks of MRI and iUS do not lie on each other after any rigid motion: tissue has changed
its shape, and clicks are not exact. What is left after the best rigid fit is the floor of every
mean error measured on them; how far that fit turns when other landmarks of the same kind had been
chosen tells how well they fix it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.estimation import kabsch
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry.transform import rotation_angle_deg

DRAWS = 2000


@dataclass(frozen=True)
class Floor:
    """All mm and degrees.

    Attributes:
        count: landmark pairs.
        before: mean distance as navigation laid the iUS.
        turned, shifted: size of the best rigid fit: its angle, and how far their middle moves.
        after: mean distance left by that fit.
        left_out: the same for each landmark by the fit to all others.
        uncertain: angle between fits to landmarks drawn anew (bootstrap), exceeded by 1 in 20.
    """

    count: int
    before: float
    turned: float
    shifted: float
    after: float
    left_out: float
    uncertain: float


def rigid_floor(fixed: torch.Tensor, moving: torch.Tensor, seed: int = 0) -> Floor:
    """Of landmarks ``[N, 3]`` of the MRI and the iUS, RAS mm, paired row by row.

    Raises:
        EstimationError: fewer than three landmarks, or on a line.
    """
    fit, count = landmark_fit(fixed, moving), len(fixed)
    fixed, moving = fixed.double(), moving.double()
    others = kabsch(*_repeated(fixed, moving, count), 1 - torch.eye(count).double())
    moved = (others[:, :3, :3] @ moving[..., None])[..., 0] + others[:, :3, 3]
    rng = np.random.default_rng(seed)
    drawn = torch.from_numpy(rng.multinomial(count, np.full(count, 1 / count), DRAWS)).double()
    again = kabsch(*_repeated(fixed, moving, DRAWS), drawn).numpy()
    again = again[np.isfinite(again).all((1, 2))]  # without those that drew a line
    turns = Rotation.from_matrix(again[:, :3, :3] @ fit[:3, :3].T).magnitude()
    middle = moving.mean(0, keepdim=True)
    return Floor(
        count,
        float(target_errors(np.eye(4), fixed, moving).mean()),
        rotation_angle_deg(fit),
        float(target_errors(fit, middle, middle)),
        float(target_errors(fit, fixed, moving).mean()),
        float((moved - fixed).norm(dim=1).mean()),
        float(np.degrees(np.quantile(turns, 0.95))),
    )


def _repeated(
    fixed: torch.Tensor, moving: torch.Tensor, times: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return fixed.expand(times, -1, -1), moving.expand(times, -1, -1)


def table(found: dict[str, Floor]) -> str:
    """Markdown."""
    rows = [
        "| landmarks | pairs | mean distance before | best fit: turned | shifted | left | of one "
        "left out | the fit turns by up to |",
        "|---" * 8 + "|",
    ]
    for name, one in found.items():
        rows.append(
            f"| {name} | {one.count} | {one.before:.1f} mm | {one.turned:.1f} deg | "
            f"{one.shifted:.1f} mm | {one.after:.2f} mm | {one.left_out:.2f} mm | "
            f"{one.uncertain:.1f} deg |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("landmarks", nargs="+", type=Path, help="one file of pairs each")
    args = parser.parse_args(arguments)
    print(table({path.stem: rigid_floor(*read_landmark_pairs(path)) for path in args.landmarks}))


if __name__ == "__main__":
    main()
