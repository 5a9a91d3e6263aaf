"""How time and memory of a registration grow with the MRI's size and the number of iUS points.

    python -m Testing.Studies.scaling --mri HEAD --output scaling.json

An ultrasound is simulated from the MRI and registered to it with the general model, in a process of
its own for every setting: first cold (the MRI is described), then warm. The MRI is resampled to
grow or shrink; the number of iUS points is varied at its own size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from CrossKEYLib.config import RegisterConfig
from CrossKEYLib.evaluation.cases import worth_registering
from CrossKEYLib.formats.atomic import check_writable, write_json
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.allocator import keep_freed_memory
from CrossKEYLib.synthesis.anatomy import read_anatomy
from CrossKEYLib.synthesis.simulator import simulate

SPACINGS_MM = [2.0, 1.5, 1.0, 0.75]
POINTS = [500, 1000, 2000, 6000, 12000, 24000]
SIMULATED_MM = 0.5
LEAST_ML = 20.0
REPEATS = 3


@dataclass(frozen=True)
class Settings:
    """What is varied, and how it is measured.

    Attributes:
        spacings_mm: of the MRI.
        points: of the iUS.
        repeats: warm registrations, of which the median is told.
        threads: of the processor; all when None.
    """

    spacings_mm: Sequence[float]
    points: Sequence[int]
    repeats: int
    threads: int | None


def measure(
    mri: Path, ius: Path, points: int, repeats: int, threads: int | None
) -> dict[str, float]:
    """Seconds of a cold and a warm registration and peak memory, in this process."""
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    fixed, moving, model = Volume.read(mri), Volume.read(ius), Model.load()
    config = replace(RegisterConfig(), moving_points=points)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        done = register(fixed, moving, model, config=config)
        seconds.append(time.perf_counter() - start)
        model = replace(model, described=done.fixed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "voxels": float(np.prod(fixed.shape)),
        "places": float(len(done.fixed)),
        "points": float(points),
        "cold_s": seconds[0],
        "warm_s": float(np.median(seconds[1:])),
        "peak_mb": peak / (1024**2 if sys.platform == "darwin" else 1024),
        "accepted": float(done.trust.accepted),
    }


def curves(mri: Volume, settings: Settings, seed: int = 0) -> dict[str, list[dict[str, float]]]:
    """Both series, each setting measured in a fresh process."""
    generator = torch.Generator().manual_seed(seed)
    anatomy = read_anatomy([mri])
    ius = worth_registering(
        lambda: simulate(anatomy, generator, spacing_mm=SIMULATED_MM), LEAST_ML
    ).volume
    found: dict[str, list[dict[str, float]]] = {"size": [], "points": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ius.write(folder / "ius.nii.gz")
        mri.write(folder / "mri.nii.gz")
        usual = RegisterConfig().moving_points
        for spacing in settings.spacings_mm:
            grid = Grid.around(mri.corners_ras(), spacing)
            mri.resample(grid).write(folder / "sized.nii.gz")
            found["size"].append(_apart(folder / "sized.nii.gz", folder, usual, settings))
        for points in settings.points:
            found["points"].append(_apart(folder / "mri.nii.gz", folder, points, settings))
    return found


def _apart(mri: Path, folder: Path, points: int, settings: Settings) -> dict[str, float]:
    command = [sys.executable, "-m", "Testing.Studies.scaling", "--mri", str(mri)]
    command += ["--ius", str(folder / "ius.nii.gz"), "--points", str(points)]
    command += ["--repeats", str(settings.repeats)]
    command += [] if settings.threads is None else ["--threads", str(settings.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown."""
    rows = ["| MRI voxels | places | iUS points | cold | warm | peak memory |", "|---" * 6 + "|"]
    rows += [
        f"| {one['voxels'] / 1e6:.1f} M | {one['places']:.0f} | {one['points']:.0f} "
        f"| {one['cold_s']:.1f} s | {one['warm_s']:.1f} s | {one['peak_mb'] / 1024:.1f} GB |"
        for series in found.values()
        for one in series
    ]
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mri", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="JSON")
    parser.add_argument("--threads", type=int, help="of the processor; all when missing")
    parser.add_argument("--ius", type=Path, help="measure this pair alone, here")
    parser.add_argument("--spacing-mm", type=float, nargs="+", default=SPACINGS_MM)
    parser.add_argument("--points", type=int, nargs="+", default=POINTS, help="of the iUS")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="warm registrations")
    args = parser.parse_args(arguments)
    if args.ius is not None:
        for points in args.points:
            print(json.dumps(measure(args.mri, args.ius, points, args.repeats, args.threads)))
        return
    if args.output is not None:
        check_writable(args.output)
    settings = Settings(args.spacing_mm, args.points, args.repeats, args.threads)
    found = curves(Volume.read(args.mri), settings)
    if args.output is not None:
        write_json(found, args.output)
    print(table(found))


if __name__ == "__main__":
    main()
