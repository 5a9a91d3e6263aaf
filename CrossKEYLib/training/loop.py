"""The training loop: synthetic pairs of one or many patients, InfoNCE, checkpoint, resume.

Each step draws its data from a generator seeded by (seed, step, process) alone. A resumed run
therefore needs no random state to go on exactly as it would have without the interruption.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import TrainConfig
from ..descriptors.dense import DenseEncoder, FeatureMap
from ..errors import InputError, ModelError
from ..formats.checkpoint import TRAINING, load_checkpoint, save_checkpoint
from ..models.patient import encoder_config
from ..runtime.progress import Progress
from . import distributed
from .curriculum import learning_rate
from .losses import info_nce, position
from .patient.pairs import Pair, Patient, draw_pairs

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


def train(
    encoder: DenseEncoder,
    patients: Sequence[Patient],
    config: TrainConfig,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    identity: str = "",
    report: Report | None = None,
) -> dict[str, float | int | str]:
    """Train an encoder in place on synthetic pairs.

    Args:
        encoder: on the device to train on.
        patients: drawn from with equal chance.
        config: length, curriculum, optimiser.
        seed: of everything random.
        checkpoint: written every ``config.save_seconds`` and resumed from when it is there.
        identity: what the run is about (data and start); a checkpoint of another run is refused.
        report: called after every step.

    Returns:
        History for the model file: steps, seconds, last loss and held-out precision.

    Raises:
        InputError: no patient, or the checkpoint cannot be written.
        ModelError: the checkpoint belongs to another run.
    """
    if not patients:
        raise InputError("training needs at least one patient")
    device = next(encoder.parameters()).device
    rank, world = distributed.join(device)
    return Run(encoder, patients, config, seed, checkpoint, identity, report, rank, world).go()


class Run:
    """One training run; what it learns from is for a subclass to replace: `draw`, `loss`,
    `held_out`, `precision` and `plain_config`."""

    def __init__(
        self,
        encoder: Any,
        patients: Sequence[Any],
        config: TrainConfig,
        seed: int,
        checkpoint: Path | None,
        identity: str,
        report: Report | None,
        rank: int,
        world: int,
    ) -> None:
        self.encoder, self.patients, self.config, self.seed = encoder, patients, config, seed
        self.rank, self.world = rank, world
        self.checkpoint, self.report = checkpoint, report or (lambda progress: None)
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

    def draw(self, step: int, angle_deg: float) -> list[Pair]:
        """Pairs of this step and process; views that hold too little are drawn again."""
        generator = torch.Generator()
        for attempt in range(50):
            entropy = np.random.SeedSequence((self.seed, step, self.rank, attempt))
            generator.manual_seed(int(entropy.generate_state(1)[0]))
            patient = self.patients[int(torch.randint(len(self.patients), (), generator=generator))]
            pairs = draw_pairs(
                patient,
                generator,
                max_angle_deg=angle_deg,
                count=self.config.crops,
                points=self.config.points,
                crop_mm=self.config.crop_mm,
                in_mri_tones=self.state.done < self.config.mri_share,
            )
            if pairs:
                return pairs
        raise InputError(
            "no synthetic view of this MRI holds enough brain to train on; "
            "check that the MRI shows the brain"
        )

    def loss(self, pairs: Sequence[Pair]) -> torch.Tensor:
        fixed_maps, moving_maps = self._maps(pairs)
        # All crops of a step show one patient in one world: each lends the others its negatives.
        places = torch.cat([pair.elsewhere for pair in pairs])
        others = torch.cat(
            [fixed.sample(pair.elsewhere) for fixed, pair in zip(fixed_maps, pairs, strict=True)]
        )
        losses = [
            info_nce(
                fixed.sample(pair.points_fixed),
                moving.sample(pair.points_moving),
                pair.points_fixed,
                self.config.temperature,
                self.config.exclusion_mm,
                extra_fixed=others,
                extra_points_fixed=places,
            )
            for pair, fixed, moving in zip(pairs, fixed_maps, moving_maps, strict=True)
        ]
        total = torch.stack(losses).mean()
        if self.config.position_weight:
            total = total + self.config.position_weight * self._position_loss(
                pairs, fixed_maps, moving_maps
            )
        return total

    def _position_loss(
        self, pairs: Sequence[Pair], fixed_maps: list[FeatureMap], moving_maps: list[FeatureMap]
    ) -> torch.Tensor:
        """Each place of one image against places around it in the other, in both directions."""
        losses = []
        for pair, fixed, moving in zip(pairs, fixed_maps, moving_maps, strict=True):
            both = ((fixed, pair.points_fixed), (moving, pair.points_moving))
            for (one, at_one), (other, at_other) in (both, both[::-1]):
                offsets = self._offsets(pair)
                around = (at_one[:, None] + offsets).flatten(0, 1)
                losses.append(
                    position(
                        other.sample(at_other),
                        one.sample(at_one),
                        one.sample(around).unflatten(0, offsets.shape[:2]),
                        self.config.temperature,
                    )
                )
        return torch.stack(losses).mean()

    def _offsets(self, pair: Pair) -> torch.Tensor:
        """``[N, position_places, 3]`` mm, in random directions; the pair decides them."""
        seed = int(pair.points_fixed.sum().abs() * 1000) % 2**31
        generator = torch.Generator().manual_seed(seed)
        size = (len(pair.points_fixed), self.config.position_places)
        nearest, farthest = self.config.position_nearest_mm, self.config.position_farthest_mm
        ways = F.normalize(torch.randn(*size, 3, generator=generator), dim=2)
        lengths = nearest + (farthest - nearest) * torch.rand(*size, 1, generator=generator)
        return (ways * lengths).to(pair.points_fixed)

    def _maps(self, pairs: Sequence[Pair]) -> tuple[list[FeatureMap], list[FeatureMap]]:
        device = pairs[0].points_fixed.device.type
        with torch.autocast(device, torch.bfloat16):
            return (
                self.encoder.maps([pair.mri for pair in pairs], "mri"),
                self.encoder.maps([pair.ius for pair in pairs], "ius"),
            )

    def held_out(self) -> list[Pair]:
        """Pairs of styles and views that training never draws, the same in every process."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED + self.seed)
        pairs: list[Pair] = []
        for _ in range(20 * self.config.held_out):
            if len(pairs) >= self.config.held_out:
                break
            index = int(torch.randint(len(self.patients), (), generator=generator))
            pairs += draw_pairs(
                self.patients[index],
                generator,
                max_angle_deg=20,
                count=1,
                points=self.config.points,
                crop_mm=self.config.crop_mm,
            )
        return pairs

    @torch.no_grad()
    def precision(self, held_out: Sequence[Pair]) -> float:
        """Share of nearest-neighbour matches within 5 mm over the held-out pairs."""
        self.encoder.eval()
        shares = []
        for pair in held_out:
            (fixed,), (moving,) = self._maps([pair])
            found = moving.sample(pair.points_moving) @ fixed.sample(pair.points_fixed).T
            error = (pair.points_fixed[found.argmax(1)] - pair.points_fixed).norm(dim=1)
            shares.append(float((error < 5).float().mean()))
        return sum(shares) / max(len(shares), 1)

    def plain_config(self) -> dict[str, Any]:
        """Plain values from which the network can be built again."""
        return encoder_config(self.encoder)

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
