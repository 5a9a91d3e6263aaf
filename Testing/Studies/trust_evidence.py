"""Register a pair and keep every transform that was judged on the way, with its true error."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CrossKEYLib.config import RegisterConfig
from CrossKEYLib.estimation.target_error import landmark_fit, target_errors
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.registration.candidate import Candidate
from CrossKEYLib.registration.pipeline import _Pipeline
from CrossKEYLib.trust.assess import Trust

from .trust_images import Truth

NEAR_MISSES = 1  # for each pair that belongs together
NEAREST_MM, FARTHEST_MM, MOST_DEG = 6.0, 15.0, 10.0
OWN, NEAR = "own", "near miss"


@dataclass(frozen=True, eq=False)
class Judged:
    """One transform with its verdict."""

    candidate: Candidate
    trust: Trust


class Recorder(_Pipeline):
    """A registration that keeps every attempt that it judges."""

    def __init__(self, model: Model, config: RegisterConfig, seed: int) -> None:
        super().__init__(model, config, None, seed, None)
        self.judged: list[Judged] = []

    def _assess(self, candidate: Candidate) -> Trust:
        trust = super()._assess(candidate)
        self.judged.append(Judged(candidate, trust))
        return trust

    def displaced(self, candidate: Candidate, matrix: Matrix) -> None:
        """Judge another ``T_fixed_moving`` of a pair, with the iUS described as it lies then and
        refined from there."""
        other = self._compared(candidate.pair, transform.nearest_rotation(matrix))
        threshold = self.config.estimate.inlier_threshold_mm
        other = self._refined(other.with_matrix(matrix, threshold))
        if other.result.matrix is not None:
            self._assess(other)


class Writer:
    """Appends what is not in the file yet."""

    def __init__(self, file: Path, stamp: dict[str, Any]) -> None:
        self.file, self.stamp = file, stamp
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines]
        self.done = {row["pair"] for row in rows if all(row[k] == v for k, v in stamp.items())}

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows and tell of them."""
        with self.file.open("a", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(_plain({**row, **self.stamp})) + "\n")
        for row in rows:
            told = "no transform"
            if row["trust"] is not None:
                told = f"confidence {row['trust']['confidence']:.2f}"
                told += "" if row["tre_mm"] is None else f", {row['tre_mm']:.1f} mm off"
            print(f"{row['pair']} ({row['kind']}): {told}, {row.get('seconds')} s", flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def rows_of(
    recorder: Recorder, truth: Truth | None, start: Matrix, kind: str, named: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each transform that was judged; ``truth`` is None where nothing corresponds."""
    rows = []
    for number, judged in enumerate(recorder.judged):
        matrix = judged.candidate.result.matrix
        if matrix is None:
            continue
        errors: dict[str, float | None] = {"tre_mm": None, "to_fit_mm": None, "floor_mm": None}
        if truth is not None:
            moved = transform.apply(start, truth.moving)
            fit = landmark_fit(truth.fixed, moved)
            errors["tre_mm"] = float(target_errors(matrix, truth.fixed, moved).mean())
            errors["floor_mm"] = float(target_errors(fit, truth.fixed, moved).mean())
            there = transform.apply(fit, moved.double())
            errors["to_fit_mm"] = float(target_errors(matrix, there, moved).mean())
        evidence = {
            k: v for k, v in asdict(judged.trust).items() if k not in ("accepted", "reasons")
        }
        rows.append(
            {
                **named,
                "kind": kind,
                "attempt": number,
                "last": judged is recorder.judged[-1],
                **errors,
                "n_matches": len(judged.candidate.matches),
                "trust": evidence,
            }
        )
    return rows


def started(ius: Volume, generator: torch.Generator) -> Matrix:
    """A misplacement of up to 30 mm and 30 degrees."""
    mm, degrees = (30 * float(torch.rand((), generator=generator)) for _ in range(2))
    seed = int(torch.randint(2**31, (), generator=generator))
    return transform.random_rigid(np.random.default_rng(seed), mm, degrees, ius.centre_ras)


@dataclass(frozen=True, eq=False)
class Shown:
    """An MRI, described once for all ultrasound that is registered to it.

    Attributes:
        mri: the volume.
        model: the encoder, with the described places of this MRI.
        config: of the registrations.
    """

    mri: Volume
    model: Model
    config: RegisterConfig

    @classmethod
    def of(cls, mri: Volume, model: Model, config: RegisterConfig) -> Shown:
        described = Recorder(model, config, 0)._describe_fixed(mri)
        return cls(mri, replace(model, described=described), config)

    def registered(
        self,
        ius: Volume,
        truth: Truth | None,
        kind: str,
        named: dict[str, Any],
        generator: torch.Generator,
    ) -> list[dict[str, Any]]:
        """Register from a random start; where the truth is known, displaced transforms are judged
        too."""
        start = started(ius, generator)
        moving = ius.moved(start)
        began = time.process_time()
        seed = int(torch.randint(2**31, (), generator=generator))
        recorder = Recorder(self.model, self.config, seed)
        recorder.run(self.mri, moving, None, None)
        seconds = round(time.process_time() - began, 1)
        rows = rows_of(recorder, truth, start, kind, {**named, "seconds": seconds})
        if truth is None:
            return rows
        fit = landmark_fit(truth.fixed, transform.apply(start, truth.moving))
        candidate = recorder.judged[-1].candidate
        recorder.judged.clear()
        for _ in range(NEAR_MISSES):
            share, turn = (float(torch.rand((), generator=generator)) for _ in range(2))
            mm = NEAREST_MM + (FARTHEST_MM - NEAREST_MM) * share
            rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
            step = transform.random_rigid(rng, mm, MOST_DEG * turn, moving.centre_ras)
            recorder.displaced(candidate, fit @ step)
        return rows + rows_of(recorder, truth, start, NEAR, {**named, "seconds": 0.0})
