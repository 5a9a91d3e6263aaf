"""How many SIFT3D keypoints are found again after rotation, resampling and noise.

python -m Testing.Studies.repeatability IMAGE
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import SiftConfig
from CrossKEYLib.errors import CrossKEYError
from CrossKEYLib.geometry.intensity import AIR, rescaled
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.keypoints.keypoints import Keypoints, distances
from CrossKEYLib.keypoints.sift3d import detect

ROTATIONS_DEG = (10.0, 20.0, 30.0)
SPACINGS_MM = (0.8, 1.25)
NOISE_SHARES = (0.02, 0.05, 0.10)  # standard deviation over intensity range
AXIS = (0.60, 0.64, 0.48)  # unit vector, far from every grid axis
CHANCE_SHIFT_MM = 12.0  # moves every keypoint off its structure, but not out of the anatomy


@dataclass(frozen=True)
class Repeatability:
    """One line of the table; shares from 0 to 1."""

    change: str
    keypoints: int  # found in the changed volume
    found_again: float  # share of the original keypoints with one of these within the tolerance
    by_chance: float  # the same after moving the original keypoints aside
    seconds: float  # of the detection in the changed volume


def found_again(fixed: Keypoints, moving: Keypoints, tolerance_mm: float = 2.0) -> float:
    """Share of ``fixed`` with a keypoint of ``moving`` within ``tolerance_mm``; same world."""
    if not len(fixed) or not len(moving):
        return 0.0
    nearest = [distances(p, moving.points).amin(1) for p in fixed.points.split(4096)]
    return float((torch.cat(nearest) <= tolerance_mm).float().mean())


def repeatability(
    volume: Volume,
    config: SiftConfig | None = None,
    spacing_mm: float | None = 1.0,
    tolerance_mm: float = 2.0,
    generator: torch.Generator | None = None,
) -> list[Repeatability]:
    """Detect in the volume, then in each changed copy of it, and compare positions in RAS mm.

    Args:
        volume: any grid; its 1st to 99th percentile is used.
        config: detector settings.
        spacing_mm: the detector's working resolution.
        tolerance_mm: how near counts as found again.
        generator: source of the noise; seed 0 by default.

    Raises:
        InputError: the volume is constant or too small.
    """
    volume = rescaled(volume)
    generator = generator or torch.Generator().manual_seed(0)
    start = time.perf_counter()
    fixed = detect(volume, config, spacing_mm=spacing_mm)
    aside = Keypoints(
        fixed.points + CHANCE_SHIFT_MM * torch.tensor(AXIS, device=volume.device),
        fixed.scales,
        fixed.scores,
        fixed.orientations,
    )
    rows = [Repeatability("none", len(fixed), 1.0, 0.0, time.perf_counter() - start)]
    for change, changed in _changes(volume, generator):
        start = time.perf_counter()
        moving = detect(changed, config, spacing_mm=spacing_mm)
        seconds = time.perf_counter() - start
        share, chance = (found_again(k, moving, tolerance_mm) for k in (fixed, aside))
        rows.append(Repeatability(change, len(moving), share, chance, seconds))
    return rows


def _changes(volume: Volume, generator: torch.Generator) -> Iterator[tuple[str, Volume]]:
    """Changed copies, all in the world of ``volume``: a rotation turns the sampling grid."""
    corners, spacing = volume.corners_ras(), float(volume.spacing_mm.min())
    for angle in ROTATIONS_DEG:
        turn = Rotation.from_rotvec([angle * a for a in AXIS], degrees=True).as_matrix()
        grid = Grid.around(corners, spacing, rotation=turn)
        yield f"rotation {angle:.0f} deg", volume.resample(grid)
    for step in SPACINGS_MM:
        grid = Grid.around(corners, step)
        yield f"resampled {step:g} mm", volume.resample(grid)
    filled = volume.array > AIR / 2
    for share in NOISE_SHARES:
        noise = torch.randn(volume.shape, generator=generator, device=generator.device)
        noisy = (volume.array + share * noise.to(volume.device)).clamp_min(AIR)
        yield f"noise {share:.0%}", volume.replaced(torch.where(filled, noisy, 0))


def table(rows: list[Repeatability]) -> str:
    """Plain text, one line per change."""
    lines = ["change             keypoints  found again  by chance  seconds"]
    for r in rows:
        lines.append(
            f"{r.change:<18} {r.keypoints:>9} {r.found_again:>11.0%} {r.by_chance:>10.0%}"
            f" {r.seconds:>8.1f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="repeatability", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("image", help="any 3D image SimpleITK reads")
    parser.add_argument("--spacing", type=float, default=1.0, help="working resolution, mm")
    given = parser.parse_args(arguments)
    try:
        print(table(repeatability(Volume.read(given.image), spacing_mm=given.spacing)))
    except CrossKEYError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
