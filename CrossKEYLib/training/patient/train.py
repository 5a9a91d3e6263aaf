"""Training on synthetic pairs of one or many patients with InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...config import TrainConfig
from ...descriptors.dense import DenseEncoder, FeatureMap
from ...errors import InputError
from ...models.patient import encoder_config
from .. import distributed
from ..loop import HELD_OUT_SEED, Report, Run
from ..losses import info_nce, position
from .pairs import Pair, Patient, draw_pairs


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
    run = PatientRun(encoder, patients, config, seed, checkpoint, identity, report, rank, world)
    return run.go()


class PatientRun(Run):
    """Training of a dense encoder on pairs of MRI and simulated ultrasound."""

    encoder: DenseEncoder
    config: TrainConfig
    patients: Sequence[Patient]

    def draw(self, step: int, angle_deg: float) -> list[Pair]:
        """Pairs of this step and process; views with too few points are drawn again."""
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
        # All crops of a step show one patient, so the points of each are negatives of the others.
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
