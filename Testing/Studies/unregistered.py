"""What cross-modality learning in rounds is tried on: aligned images taken apart, truth kept.

    python -m Testing.Studies.unregistered apart --images T2.nii.gz FLAIR.nii.gz --output DIR
    python -m Testing.Studies.unregistered table --data rounds.yaml --truth DIR/truth.json \
        --rounds model.rounds.json

``apart`` writes each image with its world moved by a random rigid motion (nothing is resampled),
and the motions. ``table`` says how far each round's registrations of those images were from the
truth, beside the held-out error that the round ended with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.foreground import shown_points
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.training.universal.pretrain import read_plan
from CrossKEYLib.training.universal.rounds import MOTION

SAMPLES = 2000


def take_apart(images: Sequence[Path], output: Path, seed: int) -> None:
    """Write the moved images under the name of their folder and their own, and ``truth.json``:
    for each the 4x4 from its old world to its new one, RAS mm."""
    output.mkdir(parents=True, exist_ok=True)
    known = output / "truth.json"
    truth = json.loads(known.read_text()) if known.exists() else {}
    for number, path in enumerate(images):
        volume = Volume.read(path)
        rng = np.random.default_rng((seed, number, 31))
        motion = transform.random_rigid(rng, *MOTION, volume.centre_ras)
        name = f"{path.resolve().parent.name}_{path.name}"
        volume.moved(motion).write(output / name)
        truth[name] = motion.tolist()
    write_json(truth, known)


def errors(data: Path, rounds: Path, truth: Path) -> list[dict]:
    """One entry for each round: held-out figures, and every registration's error (mm), mean over
    what the image shows; None where nothing was found."""
    motions = {name: np.array(m) for name, m in json.loads(truth.read_text()).items()}
    files = {p.name: [*p.unregistered, *p.sweeps] for p in read_plan(data).patients}
    points = {p: _points(p, motions[p.name]) for paths in files.values() for p in paths}
    found = []
    for done in json.loads(rounds.read_text()):
        pairs = []
        for pair in done["pairs"]:
            path = files[pair["patient"]][pair["image"]]
            matrix = None if pair["matrix"] is None else np.array(pair["matrix"])
            error = None if matrix is None else _error(matrix @ motions[path.name], points[path])
            pairs.append({"image": path.name, "kept": pair["kept"], "error_mm": error})
        found.append({**done, "pairs": pairs})
    return found


def _points(path: Path, motion: Matrix) -> torch.Tensor:
    """Of what an image shows, ``[N, 3]`` in the world it was taken from."""
    volume = Volume.read(path).moved(transform.invert(motion))
    return shown_points(volume, SAMPLES)


def _error(matrix: Matrix, points: torch.Tensor) -> float:
    return float((transform.apply(matrix, points) - points).norm(dim=1).mean())


def table(found: Sequence[dict]) -> str:
    """Markdown, one line a round."""
    rows = [
        "| round | registered, kept | error of those kept, mean / largest | error of all, median "
        "| held-out points, mean error | within 5 mm | nearest neighbours alone |",
        "|---" * 7 + "|",
    ]
    for done in found:
        pairs = done["pairs"]
        kept = [pair["error_mm"] for pair in pairs if pair["kept"]]
        every = [np.inf if pair["error_mm"] is None else pair["error_mm"] for pair in pairs]
        shown = f"{np.mean(kept):.2f} / {max(kept):.2f} mm" if kept else ""
        middle = f"{np.median(every):.2f} mm" if every else ""
        rows.append(
            f"| {done['number']} | {f'{len(kept)} of {len(pairs)}' if pairs else ''} | {shown} "
            f"| {middle} | {done['held_out_mm']:.2f} mm | {done['near']:.0%} "
            f"| {done['nearest_mm']:.2f} mm |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="unregistered", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    apart = commands.add_parser("apart", help="move images out of their common world")
    apart.add_argument("--images", nargs="+", type=Path, required=True)
    apart.add_argument("--output", type=Path, required=True, help="folder")
    apart.add_argument("--seed", type=int, default=0)
    shown = commands.add_parser("table", help="hold rounds against the truth")
    shown.add_argument("--data", type=Path, required=True, help="YAML of the training")
    shown.add_argument("--rounds", type=Path, required=True, help="JSON beside the model")
    shown.add_argument("--truth", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.command == "apart":
        take_apart(args.images, args.output, args.seed)
    else:
        print(table(errors(args.data, args.rounds, args.truth)))


if __name__ == "__main__":
    main()
