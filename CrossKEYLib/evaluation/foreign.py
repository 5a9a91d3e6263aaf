"""False acceptances: ultrasound registered to the MRI of other patients, where nothing is right.

    python -m CrossKEYLib.evaluation.foreign --mri MR ... --ius US ... --output foreign.json

Every ultrasound is registered to every MRI, so give only pairs that do not belong together. Every
outcome is written to a JSON file; the table is computed from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..model import Model, pick_device
from ..registration import register
from ..volume import Volume
from ..writing import write_json


def run(mri: Sequence[Path], ius: Sequence[Path], model: Model, device: torch.device) -> list[dict]:
    """Register all pairs; plain values, one entry each."""
    outcomes = []
    volumes = [Volume.read(path).to(device) for path in ius]
    for fixed_path in mri:
        fixed, known = Volume.read(fixed_path).to(device), model
        for seed, (moving_path, moving) in enumerate(zip(ius, volumes, strict=True)):
            result = register(fixed, moving, known, seed=seed)
            known = replace(model, keypoints=result.fixed)  # described once per MRI
            outcomes.append({"mri": fixed_path.name, "ius": moving_path.name, **result.report()})
            print(
                f"{fixed_path.name} {moving_path.name}: confidence "
                f"{result.trust.confidence:.2f}, {'ACCEPTED' if result else 'refused'}",
                flush=True,
            )
    return outcomes


def table(outcomes: Sequence[dict]) -> str:
    """Markdown: one row per MRI."""
    rows = ["| MRI | pairs | accepted | confidence, median | confidence, largest |"]
    rows.append("|---|---|---|---|---|")
    for name in dict.fromkeys(o["mri"] for o in outcomes):
        part = [o for o in outcomes if o["mri"] == name]
        confidence = [o["confidence"] for o in part]
        rows.append(
            f"| {name} | {len(part)} | {sum(o['accepted'] for o in part)} | "
            f"{np.median(confidence):.2f} | {max(confidence):.2f} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="foreign", description=__doc__)
    parser.add_argument("--mri", required=True, nargs="+", type=Path)
    parser.add_argument("--ius", required=True, nargs="+", type=Path)
    parser.add_argument("--model", help="the bundled general one when missing")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    device = pick_device(args.device)
    outcomes = run(args.mri, args.ius, Model.load(args.model).to(device), device)
    write_json(outcomes, args.output)
    print(table(json.loads(args.output.read_text())))


if __name__ == "__main__":
    main()
