"""Training of the universal anatomical embedding (Bai et al., arXiv 2311.15111) on many patients.

Appearance: pairs of augmented views of one region, fine and coarse InfoNCE in both directions.
Semantics: where patients have labels, the prototypical loss over the two volumes of a step.
The loop, its checkpoints and its processes are those of `training/loop.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...config import UniversalTrainConfig
from ...descriptors.uae import STRIDES, Maps, UAENetwork
from ...errors import InputError
from .. import distributed
from ..loop import HELD_OUT_SEED, Report, Run
from .losses import appearance, prototypical
from .views import Subject, View, common_points, draw_views, sample_at

FEWEST = 32  # common points of a pair worth a step
PRECISE_MM = 5.0
HELD_OUT_SEVERITY = 0.7


@dataclass(frozen=True, eq=False)
class ViewPair:
    """Two views of one subject and places in them, in view indices (i, j, k).

    Attributes:
        points: the common places in each view, two of ``[N, 3]``.
        places: the same in the subject, ``[N, 3]`` mm.
        elsewhere: random places in each view, two of ``[M, 3]``.
    """

    subject: Subject
    views: tuple[View, View]
    points: tuple[torch.Tensor, torch.Tensor]
    places: torch.Tensor
    elsewhere: tuple[torch.Tensor, torch.Tensor]


def train_universal(
    network: UAENetwork,
    subjects: Sequence[Subject],
    config: UniversalTrainConfig,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    identity: str = "",
    report: Report | None = None,
) -> dict[str, float | int | str]:
    """Train the network in place; arguments, result and errors are those of `patient.train.train`.

    Raises:
        InputError: no subject, or the checkpoint cannot be written.
        ModelError: the checkpoint belongs to another run.
    """
    if not subjects:
        raise InputError("training needs at least one patient")
    device = next(network.parameters()).device
    rank, world = distributed.join(device)
    return _Run(network, subjects, config, seed, checkpoint, identity, report, rank, world).go()


class _Run(Run):
    encoder: UAENetwork
    config: UniversalTrainConfig

    def draw(self, step: int, angle_deg: float) -> list[ViewPair]:
        """Pairs of this step and process, each of another patient where there are enough.

        All differences between views grow with the angle. Without this curriculum, nothing is
        learned for thousands of steps.
        """
        severity = angle_deg / max(self.config.max_angle_deg, 1e-9)
        for attempt in range(50):
            entropy = np.random.SeedSequence((self.seed, step, self.rank, attempt))
            generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
            order = torch.randperm(len(self.patients), generator=generator).tolist()
            chosen = [order[n % len(order)] for n in range(self.config.crops)]
            pairs = [self._pair(self.patients[n], severity, generator) for n in chosen]
            pairs = [pair for pair in pairs if len(pair.places) >= FEWEST]
            if pairs:
                return pairs
        raise InputError("no two views of these images share enough to train on; check the images")

    def _pair(self, subject: Subject, severity: float, generator: torch.Generator) -> ViewPair:
        views = draw_views(subject, self.config, generator, severity)
        points = common_points(views, self.config.points, generator)
        shape = (2, self.config.candidates, 3)
        first, second = torch.rand(shape, generator=generator) * (self.config.crop_mm - 1)
        return ViewPair(subject, views, points, views[1].place_of(points[1]), (first, second))

    def loss(self, pairs: Sequence[ViewPair]) -> torch.Tensor:
        """Fine + coarse + weighted semantic loss of a step."""
        config, views = self.config, _read(self._maps(pairs), pairs)
        losses = []
        for n, view in enumerate(views):
            mate = views[n ^ 1]  # the other view of the pair
            own = pairs[n // 2].subject
            others = [v for m, v in enumerate(views) if pairs[m // 2].subject is not own]
            losses.append(self._appearance(view, mate, others))
        total = torch.stack(losses).sum() / len(pairs)
        known = [view for view in views if view.labels is not None]
        if known and config.semantic_weight > 0:
            features = torch.cat([view.semantic for view in known])
            labels = torch.cat([view.labels for view in known if view.labels is not None])
            semantic = prototypical(features, labels, config.semantic_temperature)
            total = total + config.semantic_weight * semantic
        return total

    def _appearance(self, view: _Read, mate: _Read, others: Sequence[_Read]) -> torch.Tensor:
        """One direction: the points of a view are matched with those of the other view."""
        config, count = self.config, len(view.points)
        share = config.others // max(1, len(others))
        losses = []
        for head, exclusion_mm in (
            ("fine", config.exclusion_mm),
            ("coarse", config.coarse_exclusion_mm),
        ):
            here, there = getattr(view, head), getattr(mate, head)
            foreign = [getattr(other, head)[-share:] for other in others]
            near = torch.cdist(view.points, mate.elsewhere) <= exclusion_mm
            losses.append(
                appearance(
                    here[:count],
                    there[:count],
                    there[count:],
                    near,
                    torch.cat(foreign) if foreign else here[:0],
                    config.hard,
                    config.diverse,
                    config.temperature,
                )
            )
        return losses[0] + losses[1]

    def _maps(self, pairs: Sequence[ViewPair]) -> Maps:
        device = next(self.encoder.parameters()).device
        images = torch.stack([view.image for pair in pairs for view in pair.views])
        x = torch.stack([images, (images > 0).float()], 1).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            return self.encoder(x.contiguous(memory_format=torch.channels_last_3d))

    def held_out(self) -> list[ViewPair]:
        """Views that training never draws, the same in every process."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED + self.seed)
        pairs = []
        for n in range(20 * self.config.held_out):
            if len(pairs) >= self.config.held_out:
                break
            pair = self._pair(self.patients[n % len(self.patients)], HELD_OUT_SEVERITY, generator)
            pairs += [pair] if len(pair.places) >= FEWEST else []
        return pairs

    @torch.no_grad()
    def precision(self, held_out: Sequence[ViewPair]) -> float:
        """Share of nearest neighbours, by fine and coarse cosines together, within 5 mm."""
        self.encoder.eval()
        shares = []
        for pair in held_out:
            first, second = _read(self._maps([pair]), [pair])
            count = len(pair.places)
            cosines = first.fine[:count] @ second.fine[:count].T
            nearest = (cosines + first.coarse[:count] @ second.coarse[:count].T).argmax(1)
            error = (first.points[nearest] - first.points).norm(dim=1)
            shares.append(float((error < PRECISE_MM).float().mean()))
        return sum(shares) / max(len(shares), 1)

    def plain_config(self) -> dict[str, Any]:
        return asdict(self.encoder.config)


@dataclass(frozen=True, eq=False)
class _Read:
    """One view's heads, read at its common places (first) and elsewhere; places in mm.

    Attributes:
        fine, coarse, semantic: ``[N + M, D]``, unit norm.
        points: ``[N, 3]``; elsewhere: ``[M, 3]``, in the subject.
        labels: ``[N + M]`` int64, None when unknown.
    """

    fine: torch.Tensor
    coarse: torch.Tensor
    semantic: torch.Tensor
    points: torch.Tensor
    elsewhere: torch.Tensor
    labels: torch.Tensor | None


def _read(maps: Maps, pairs: Sequence[ViewPair]) -> list[_Read]:
    """Both views of every pair, in the order of the batch."""
    device, found = maps.fine.device, []
    for n, (pair, side) in enumerate((pair, side) for pair in pairs for side in (0, 1)):
        elsewhere = pair.elsewhere[side]
        where = torch.cat([pair.points[side], elsewhere]).to(device)
        fine, coarse, semantic = (
            F.normalize(sample_at(head[n].float(), where / stride).T, dim=1)
            for head, stride in zip(maps, STRIDES, strict=True)
        )
        far = pair.views[side].place_of(elsewhere)
        labels = pair.subject.labels
        if labels is not None:
            places = torch.cat([pair.places, far]).round().long().flip(1)
            last = torch.tensor(labels.shape) - 1
            k, j, i = places.clamp_min(0).minimum(last).T
            labels = labels[k, j, i].long().to(device)
        points = pair.places.to(device)
        found.append(_Read(fine, coarse, semantic, points, far.to(device), labels))
    return found
