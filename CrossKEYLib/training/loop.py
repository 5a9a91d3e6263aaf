"""The training loop: steps, optimiser, evaluation, checkpoint, resume.

Each step draws its data from a generator seeded by (seed, step, process) alone. A resumed run
therefore needs no random state to go on exactly as it would have without the interruption.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import LoopConfig
from ..errors import ModelError
from ..formats.checkpoint import TRAINING, load_checkpoint, save_checkpoint
from ..runtime.progress import Progress, silent
from . import distributed
from .curriculum import learning_rate

HELD_OUT_SEED = 10**6  # far from every step's seed
TIMING_STEPS = 6  # steps that are timed before the length of a run by the clock is fixed
EVALUATION_SHARE = 0.2  # of a time budget, at most
OVERTIME = 1.1  # of a time budget, when the machine slows down after it was timed


Report = Callable[[Progress], None]


@dataclass
class _State:
    step: int = 0
    steps: int = 0  # planned; 0 until a run by the clock has been timed
    every: int = 0  # steps between evaluations
    seconds: float = 0.0
    loss: float = math.nan
    best: float = -1.0
    stale: int = 0  # evaluations since the best

    @property
    def done(self) -> float:
        """Share of the run, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0


class Run(ABC):
    """One training run. A subclass provides the pairs, the loss and the measure of precision."""

    def __init__(
        self,
        encoder: nn.Module,
        patients: Sequence[Any],
        config: LoopConfig,
        seed: int,
        checkpoint: Path | None,
        identity: str,
        report: Report | None,
        rank: int,
        world: int,
    ) -> None:
        self.encoder, self.patients, self.config, self.seed = encoder, patients, config, seed
        self.rank, self.world = rank, world
        self.checkpoint, self.report = checkpoint, report or silent
        self.identity = f"{identity} seed {seed} {asdict(replace(config, minutes=None))}"
        self.optimizer = torch.optim.AdamW(
            encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = config.steps or 0
        self.state = _State(steps=steps, every=max(1, steps // config.evaluations))
        self.saved = time.monotonic()

    def go(self) -> dict[str, float | int | str]:
        began = time.monotonic()
        self._resume()
        distributed.check_together(self.state.step)
        distributed.same_start(self.encoder)
        held_out = self.held_out()
        state, config = self.state, self.config
        durations: list[float] = []
        while not self._finished():
            stepped = time.monotonic()
            self._step()
            state.step += 1
            durations.append(distributed.largest(time.monotonic() - stepped))
            if not state.steps and state.step == TIMING_STEPS:
                self._plan(float(np.median(durations)), held_out)
            due = state.steps > 0 and state.step % state.every == 0
            precision = self._judge(held_out) if due else None
            now = time.monotonic()
            state.seconds += distributed.largest(now - began)
            began = now
            self.report(Progress(state.step, state.steps, state.loss, precision, state.seconds))
            if due or now - self.saved > config.save_seconds:
                self._save()
        precision = distributed.largest(self.precision(held_out))
        self._save()
        self.encoder.eval()
        return {
            "steps": state.step,
            "minutes": round(state.seconds / 60, 2),
            "loss": round(state.loss, 4),
            "held_out_precision": round(precision, 4),
            "seed": self.seed,
            "processes": self.world,
        }

    def _plan(self, step_seconds: float, held_out: Sequence[Any]) -> None:
        """Fix the length of a run by the clock, evaluations included."""
        began = time.monotonic()
        self.precision(held_out)
        evaluation = distributed.largest(time.monotonic() - began)
        spent = self.state.seconds + step_seconds + 2 * evaluation  # this one and the last
        left = max(60 * self._minutes() - spent, 0)
        count = min(self.config.evaluations, max(1, int(EVALUATION_SHARE * left / evaluation)))
        steps = (left - (count - 1) * evaluation) / step_seconds
        self.state.steps = TIMING_STEPS + max(1, int(steps))
        self.state.every = max(1, self.state.steps // count)

    def _minutes(self) -> float:
        """The time budget; one minute when neither it nor the number of steps is given."""
        return self.config.minutes or 1.0

    def _finished(self) -> bool:
        state, config = self.state, self.config
        if state.steps and state.step >= state.steps:
            return True
        if not config.steps and state.seconds > 60 * OVERTIME * self._minutes():
            return True
        settled = state.step > config.curriculum_share * max(state.steps, 1)
        return bool(state.steps) and settled and state.stale >= config.patience

    def _step(self) -> None:
        """One optimiser step."""
        state, config = self.state, self.config
        ramp = min(1.0, max(config.first_share, state.done / max(config.curriculum_share, 1e-9)))
        warm = min(1.0, (state.step + 1) / config.warmup_steps)
        highest = config.learning_rate
        rate = warm * learning_rate(state.done, 1.0, highest, highest / 1000)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pairs = self.draw(state.step, config.max_angle_deg * ramp)
        self.encoder.train()
        if config.frozen_statistics:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eval()
        loss = self.loss(pairs)
        self.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(self.encoder)
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        # Equal in all processes after every step, so that it does not matter which one saves,
        # and none can judge differently whether to stop.
        distributed.average_statistics(self.encoder)
        state.loss = float(loss.detach())

    @abstractmethod
    def draw(self, step: int, angle_deg: float) -> list[Any]:
        """Pairs of this step and process, views turned by up to ``angle_deg`` per axis.

        Raises:
            InputError: the images yield no pair to train on.
        """

    @abstractmethod
    def loss(self, pairs: Sequence[Any]) -> torch.Tensor:
        """Loss of one step, a scalar with gradient."""

    @abstractmethod
    def held_out(self) -> list[Any]:
        """Pairs that training never draws, the same in every process."""

    @abstractmethod
    def precision(self, held_out: Sequence[Any]) -> float:
        """Share of the held-out matches that are right."""

    @abstractmethod
    def plain_config(self) -> dict[str, Any]:
        """Plain values from which the network can be built again."""

    def _judge(self, held_out: Sequence[Any]) -> float:
        """The precision now; notes whether it still grows."""
        precision = distributed.largest(self.precision(held_out))
        better = precision > self.state.best + 0.002
        self.state.best = max(self.state.best, precision)
        self.state.stale = 0 if better else self.state.stale + 1
        return precision

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.checkpoint is None or self.rank:
            return
        save_checkpoint(
            self.checkpoint,
            self.encoder,
            self.plain_config(),
            TRAINING,
            self.optimizer,
            self.state.step,
            extra={"identity": self.identity, "state": asdict(self.state)},
        )

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        saved = load_checkpoint(self.checkpoint, TRAINING)
        if saved.extra.get("identity") != self.identity:
            raise ModelError(
                f"{self.checkpoint} is a checkpoint of another training run; "
                "remove it, or train with the settings and images it was made with"
            )
        load_checkpoint(self.checkpoint, TRAINING, self.encoder, self.optimizer)
        self.state = _State(**saved.extra["state"])
