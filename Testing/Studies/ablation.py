"""What the universal embedding and feature-metric refinement add to registration.

    python -m Testing.Studies.ablation --case CASE24 --output OUT.json

Three ways to find a transform: the patch descriptor alone, the same with matches gated by the
universal embedding, and the universal embedding alone. Each is then refined by the dense features
of either network. Starts are those of the benchmark. Every outcome goes into a JSON file; the
tables are computed from that file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CrossKEYLib.config import LandmarkConfig, RegisterConfig
from CrossKEYLib.errors import InputError
from CrossKEYLib.estimation.feature_pair import aligned
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.evaluation.cases import Case, Images, find_case, real_cases, simulated_cases
from CrossKEYLib.evaluation.metrics import CLOSE_MM
from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import gamma_normalised
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.keypoints.sampling import moving_points
from CrossKEYLib.landmarks.embedding_registration import register_embedded
from CrossKEYLib.landmarks.places import places, vectors
from CrossKEYLib.models.patient import Model
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.registration.features import EmbeddingFeatures, features_of
from CrossKEYLib.registration.pipeline import register

GATE_SHARE = 0.25
FINDERS = ("crosskey", "gated", "uae")
REFINEMENTS = ("none", "crosskey", "uae", "mind")
SUCCESS_MM = 3.0
PROBES = 1000  # points of the iUS whose nearest neighbours are looked at


def outcomes_of(
    case: Case, level: str, seed: int, model: Model, universal: UniversalModel
) -> list[dict[str, Any]]:
    """All ways from one start; plain values."""
    images = case.load()
    start = start_of(level, seed, images.ius.centre_ras)
    moved, ius = images.ius.moved(start), gamma_normalised(images.ius.moved(start))
    embedding = EmbeddingFeatures.of(universal, images.mri)
    precision = _precision(images, embedding)
    generator = torch.Generator().manual_seed(seed)
    points = moving_points(ius, RegisterConfig().moving_points, generator)
    found = []
    for finder in FINDERS:
        began = time.perf_counter()
        matrix = _found(finder, images.mri, moved, model, universal, seed)
        seconds = time.perf_counter() - began
        for kind in REFINEMENTS:
            began, figures, after = time.perf_counter(), {}, matrix
            if kind != "none" and matrix is not None:
                features = features_of(kind, images.mri, model, embedding)
                _, fit = aligned(features, ius, points, matrix)
                after = fit.matrix
                names = ("improved", "gain", "gain_error", "moved_mm", "uncertainty_mm")
                figures = {name: getattr(fit, name) for name in names}
                figures["tried_seconds"] = time.perf_counter() - began
            found.append(
                {
                    "kind": case.kind,
                    "mri": case.mri,
                    "ius": case.ius,
                    "level": level,
                    "seed": seed,
                    "finder": finder,
                    "refine": kind,
                    "matrix_ras": None if after is None else after.tolist(),
                    **_errors(after, images, start),
                    "seconds": seconds,
                    "precision": precision,
                    **figures,
                }
            )
    return found


def _found(
    finder: str,
    mri: Volume,
    ius: Volume,
    model: Model,
    universal: UniversalModel,
    seed: int,
) -> Matrix | None:
    if finder == "uae":
        return register_embedded(mri, gamma_normalised(ius), universal, seed=seed).matrix
    share = GATE_SHARE if finder == "gated" else 1.0
    config = RegisterConfig(gate_share=share, refine="none")
    return register(mri, ius, model, config=config, universal=universal, seed=seed).matrix


def _precision(images: Images, embedding: EmbeddingFeatures) -> float:
    """Share of the iUS's salient points whose most similar place of the MRI, by the universal
    embedding, lies within 5 mm of where the targets' fit puts them; both images in place."""
    truth = _truth(images)
    laid = gamma_normalised(images.ius).moved(truth)
    points = moving_points(laid, PROBES, torch.Generator().manual_seed(0))
    config = LandmarkConfig()
    wanted = vectors(embedding.model.embed(laid), points, config)
    table = places(embedding.mri, config)
    found = torch.cat([(part @ table.descriptors.T).argmax(1) for part in wanted.split(100)])
    return float(((table.points[found] - points).norm(dim=1) < CLOSE_MM).float().mean())


def _truth(images: Images) -> Matrix:
    """What fits the targets best.

    Raises:
        InputError: there are none.
    """
    if images.targets_fixed is None or images.targets_moving is None:
        raise InputError("the ablation needs landmarks")
    return landmark_fit(images.targets_fixed, images.targets_moving)


def _errors(matrix: Matrix | None, images: Images, start: Matrix) -> dict[str, float | None]:
    """Mean error at the targets, and the rotation against what fits the targets best."""
    fixed, moving = images.targets_fixed, images.targets_moving
    if matrix is None or fixed is None or moving is None:
        return {"tre_mm": None, "turned_deg": None}
    off = transform.invert(_truth(images)) @ matrix @ start
    moving = transform.apply(start, moving)
    return {
        "tre_mm": float(target_errors(matrix, fixed, moving).mean()),
        "turned_deg": transform.rotation_angle_deg(off),
    }


def precisions(outcomes: Sequence[dict]) -> str:
    """Markdown: how often the universal embedding alone finds a place, without any start."""
    rows = ["| MRI | ultrasound | nearest neighbours within 5 mm |", "|---|---|---|"]
    found = dict.fromkeys((o["mri"], o["ius"], o["precision"]) for o in outcomes)
    rows += [f"| {mri} | {ius} | {100 * share:.0f} % |" for mri, ius, share in found]
    return "\n".join(rows)


def table(outcomes: Sequence[dict]) -> str:
    """Markdown: errors over all starts and images of a kind."""
    rows = [
        "| MRI | found by | refined by | mean TRE | largest | within 3 mm | turned | taken |",
        "|---" * 8 + "|",
    ]
    for mri, finder, kind in dict.fromkeys((o["mri"], o["finder"], o["refine"]) for o in outcomes):
        part = [o for o in outcomes if (o["mri"], o["finder"], o["refine"]) == (mri, finder, kind)]
        errors = np.array([np.inf if o["tre_mm"] is None else o["tre_mm"] for o in part])
        turns = [o["turned_deg"] for o in part if o["turned_deg"] is not None]
        taken = f"{sum(o.get('improved', False) for o in part)} of {len(part)}"
        rows.append(
            f"| {mri} | {finder} | {kind} | {errors.mean():.2f} mm | {errors.max():.2f} mm | "
            f"{(errors <= SUCCESS_MM).sum()} of {len(part)} | "
            f"{np.mean(turns) if turns else np.nan:.1f} deg | {'' if kind == 'none' else taken} |"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ablation", description=__doc__)
    parser.add_argument("--case", type=Path, help="folder of one patient, see the benchmark")
    parser.add_argument("--simulate", type=int, default=0, help="iUS simulated from each --mri")
    parser.add_argument("--mri", nargs="+", type=Path, default=[])
    parser.add_argument("--model", help="patch descriptor; the bundled one when missing")
    parser.add_argument("--universal", required=True, help="embedding that knows ultrasound")
    parser.add_argument("--levels", nargs="+", default=["10 / 10"], help="mm / degrees")
    parser.add_argument("--seeds", type=int, default=3, help="starts per level")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every outcome")
    args = parser.parse_args(arguments)
    cases = simulated_cases(args.mri, args.simulate)
    if args.case is not None:
        cases += real_cases(*find_case(args.case))
    model = Model.load(args.model)
    universal = UniversalModel.load(args.universal)
    outcomes: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for level in args.levels:
            for case in cases:
                outcomes += outcomes_of(case, level, seed, model, universal)
                write_json(outcomes, args.output)
    saved = json.loads(args.output.read_text())
    print(precisions(saved), table(saved), sep="\n\n")


if __name__ == "__main__":
    main()
