"""Labels carried from an atlas to other heads, against the same labels left where they lie.

    python -m Testing.Studies.carried_labels --atlas ch2bet.nii.gz --labels aal.nii.gz \
        --images MNI152_T1.nii.gz p19/T1.nii.gz p26/T1.nii.gz

The images are brains, all else zero, that lie in the atlas's space or nearly so. Each is turned and
shifted by known motions first, so that nothing is gained by staying in place. A head in the very
space of the atlas says how near carrying comes to the truth; of the others, the share of labelled
voxels that hit brain says which of the two labels are right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.landmarks.atlas import carry_labels
from CrossKEYLib.models.universal import UniversalModel

from .landmarks import MOTION


def compare(
    atlas: Volume, labels: Volume, image: Volume, model: UniversalModel, seed: int
) -> dict[str, float]:
    """Figures of one image and motion: Dice of carried with unmoved labels (mean over structures),
    mean distance of their centres (mm), and the shares of both that lie on brain."""
    motion = transform.random_rigid(np.random.default_rng((seed, 41)), *MOTION, image.centre_ras)
    carried = carry_labels(atlas, labels, image.moved(motion), model, seed=seed).array
    kept = labels.resample(Grid.of(image), "nearest").array
    brain = image.array > 0
    kinds = [kind for kind in kept.unique().tolist() if kind > 0]
    overlaps, distances = [], []
    for kind in kinds:
        a, b = carried == kind, kept == kind
        overlaps.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
        if a.any():
            centres = [image.points_ras(mask.nonzero().float()).mean(0) for mask in (a, b)]
            distances.append(float((centres[0] - centres[1]).norm()))
    return {
        "dice": float(np.mean(overlaps)),
        "centres_mm": float(np.mean(distances)),
        "on_brain_carried": _on(brain, carried),
        "on_brain_unmoved": _on(brain, kept),
    }


def _on(brain: torch.Tensor, labels: torch.Tensor) -> float:
    return float(brain[labels > 0].float().mean())


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown, one line an image, means over its motions."""
    rows = [
        "| image | on brain, unmoved | on brain, carried | Dice of the two | centres apart |",
        "|---|---|---|---|---|",
    ]
    for name, entries in found.items():
        mean = {key: np.mean([entry[key] for entry in entries]) for key in entries[0]}
        rows.append(
            f"| {name} | {mean['on_brain_unmoved']:.1%} | {mean['on_brain_carried']:.1%} | "
            f"{mean['dice']:.2f} | {mean['centres_mm']:.1f} mm |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="carried_labels", description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="of the atlas")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="stripped brains")
    parser.add_argument("--model", help="universal embedding; the bundled one when missing")
    parser.add_argument("--seeds", type=int, default=3, help="motions of each image")
    args = parser.parse_args(arguments)
    model = UniversalModel.load(args.model)
    atlas, labels = Volume.read(args.atlas), Volume.read(args.labels)
    found = {}
    for path in args.images:
        image, name = Volume.read(path), f"{path.resolve().parent.name}/{path.name}"
        found[name] = [compare(atlas, labels, image, model, seed) for seed in range(args.seeds)]
    print(table(found))


if __name__ == "__main__":
    main()
