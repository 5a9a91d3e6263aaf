"""Every method on every case from the same starts; each outcome is written before the next begins.

An interrupted run continues where it stopped: outcomes in the file are not computed again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ..config import RegisterConfig
from ..errors import EstimationError, InputError
from ..estimation.target_error import landmark_fit, target_errors
from ..formats.atomic import write_json
from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from ..models.patient import Model
from ..registration.pipeline import register
from .cases import FOREIGN, Case, Images
from .metrics import matching_precision, matching_score
from .misplacements import start_of
from .outcome import Outcome, SavedOutcomes
from .peers.registry import PEERS

OURS = "crosskey"
METHODS = (OURS, *PEERS)
UNMOVED = "0 / 0"  # level of foreign pairs, which have no true position


@dataclass(frozen=True, eq=False)
class Trial:
    """One registration to be done."""

    case: Case
    method: str
    level: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, str, str, int]:
        return (
            self.case.kind,
            self.case.mri,
            self.case.ius,
            self.method,
            self.level,
            self.seed,
        )


def plan(
    cases: Sequence[Case], methods: Sequence[str], levels: Sequence[str], seeds: int
) -> list[Trial]:
    """All trials, one seed after the other, so that an interrupted run is fair to every method.

    The other methods do not decide whether a pair belongs together. Foreign pairs are therefore
    registered by our method only, once each, with one seed a pair.
    """
    own = [case for case in cases if case.kind != FOREIGN]
    trials = [
        Trial(case, method, level, seed)
        for seed in range(seeds)
        for case in own
        for level in levels
        for method in methods
    ]
    if OURS in methods:
        strangers = [case for case in cases if case.kind == FOREIGN]
        for mri in dict.fromkeys(case.mri for case in strangers):
            part = [case for case in strangers if case.mri == mri]
            trials += [Trial(case, OURS, UNMOVED, seed) for seed, case in enumerate(part)]
    return trials


def settings_of(methods: Sequence[str], model: Model | None) -> dict[str, Any]:
    """What decides the outcomes of each method, as plain values."""
    values = {m: asdict(cast("Any", PEERS[m].config)) for m in methods if m != OURS}
    if OURS in methods and model is not None:
        config = asdict(RegisterConfig())
        values[OURS] = {"model": model.name, "weights": _digest(model), "config": config}
    return json.loads(json.dumps(values))  # as they come back from the file


def run(
    trials: Sequence[Trial],
    file: Path,
    model: Model | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Register the trials that ``file`` lacks, and add one outcome at a time to it.

    Args:
        trials: see `plan`.
        file: JSON with the settings of each method and all outcomes.
        model: ours; moved to the device where it shall run.
        report: called with a line per outcome.

    Returns:
        The outcomes of all trials ever written to the file, plain values.

    Raises:
        InputError: the file is no such file, cannot be written, or comes from other settings.
    """
    settings = settings_of(list(dict.fromkeys(t.method for t in trials)), model)
    saved: SavedOutcomes = {"settings": {}, "outcomes": []}
    if file.exists():
        saved = read_outcomes(file)
    for method, values in settings.items():
        if saved["settings"].setdefault(method, values) != values:
            raise InputError(
                f"{file} holds outcomes of {method} with other settings or another model; "
                "give another --output, or remove it"
            )
    outcomes = saved["outcomes"]
    done = {_key(outcome) for outcome in outcomes}
    for trial in trials:
        if trial.key not in done:
            outcomes.append(attempt(trial, trial.case.load(), model))
            write_json(saved, file)
            if report is not None:
                report(line(outcomes[-1]))
    return outcomes


def read_outcomes(file: Path) -> SavedOutcomes:
    """The content of a file that `run` wrote.

    Raises:
        InputError: it is not one.
    """
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(saved["settings"], dict) and all(map(_key, saved["outcomes"])):
            return saved
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not the outcomes of a benchmark; remove it") from error
    raise InputError(f"{file}: not the outcomes of a benchmark; remove it")


def attempt(trial: Trial, images: Images, model: Model | None) -> Outcome:
    """Misplace, register, compare with the truth; plain values. ``floor_mm`` is the error of the
    best rigid fit to the targets, the smallest of any rigid transform."""
    start = start_of(trial.level, trial.seed, images.ius.centre_ras)
    fixed, moving = images.targets_fixed, images.targets_moving
    moving = None if moving is None else transform.apply(start, moving)
    pair = (images.mri, images.ius.moved(start))
    truth = None if fixed is None or moving is None else landmark_fit(fixed, moving)
    began, worked = time.perf_counter(), time.process_time()
    if trial.method == OURS:
        matrix, figures = _ours(pair, trial.seed, model, truth)
    else:
        matrix, figures = _peer(pair, trial.seed, trial.method)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    names = ("kind", "mri", "ius", "method", "level", "seed")
    outcome = {
        **dict(zip(names, trial.key, strict=True)),
        "start_tre_mm": _mean_error(np.eye(4), fixed, moving),
        "tre_mm": _mean_error(matrix, fixed, moving),
        "floor_mm": _mean_error(truth, fixed, moving),
        "matrix_ras": None if matrix is None else matrix.tolist(),
        "seconds": round(seconds, 3),
        "processor_seconds": round(processor, 3),  # says more on a machine that others use too
        **figures,
    }
    return cast("Outcome", outcome)


def line(outcome: Outcome) -> str:
    """One outcome as a line of text."""
    tre = outcome["tre_mm"]
    text = f"{outcome['mri']} {outcome['ius']}: {outcome['method']:>8}, {outcome['level']:>9}, "
    text += f"seed {outcome['seed']}: "
    text += "no transform" if outcome["matrix_ras"] is None else ""
    text += f"TRE {tre:.2f} mm" if tre is not None else ""
    if "confidence" in outcome:
        text += f" confidence {outcome['confidence']:.2f}, {outcome['verdict']}"
    return f"{text}, {outcome['seconds']:.1f} s"


def _ours(
    pair: tuple[Volume, Volume], seed: int, model: Model | None, truth: Matrix | None
) -> tuple[Matrix | None, dict[str, Any]]:
    if model is None:
        raise InputError("crosskey takes part: a model is needed")
    device = next(model.encoder.parameters()).device
    result = register(pair[0].to(device), pair[1].to(device), model, seed=seed)
    report = result.report()
    kept = ("verdict", "accepted", "reasons", "confidence", "predicted_tre_mm", "n_keypoints_mri")
    kept += ("n_keypoints_ius", "n_matches", "n_inliers", "n_reported_matches", "trust")
    kept += ("device", "model", "version")
    figures = {key: report[key] for key in kept}
    if truth is not None:
        figures["precision"] = matching_precision(result, truth)
        figures["matching_score"] = matching_score(result, truth)
    return result.matrix, figures


def _peer(
    pair: tuple[Volume, Volume], seed: int, method: str
) -> tuple[Matrix | None, dict[str, Any]]:
    """The transform of another method; its failure is an outcome, too."""
    try:
        return PEERS[method].register(*pair, seed), {}
    except EstimationError as error:
        return None, {"failure": str(error)}


def _mean_error(
    matrix: Matrix | None, fixed: torch.Tensor | None, moving: torch.Tensor | None
) -> float | None:
    if matrix is None or fixed is None or moving is None:
        return None
    return float(target_errors(matrix, fixed, moving).mean())


def _key(outcome: Outcome) -> tuple[str, str, str, str, str, int]:
    o = outcome
    return o["kind"], o["mri"], o["ius"], o["method"], o["level"], o["seed"]


def _digest(model: Model) -> str:
    """Tells two models of one name apart."""
    digest = hashlib.sha256()
    for name, value in model.encoder.state_dict().items():
        digest.update(name.encode() + value.cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
