"""The CrossKEY method as published: `train` and `test` on the published data layout and YAML.

Morozov, Dorent and Haouchine, IEEE TMI 2026 (arXiv 2507.18551): a patch descriptor learned from
one patient's MRI and synthetic ultrasound. Unlike the release: positions and distances are real
millimetres, both distances of the triplet loss are plain Euclidean, places nearer than the
exclusion radius are no negatives, and the rotation of each patch follows the curriculum.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...descriptors.patches import axes_rotation, random_rotations
from ...descriptors.resnet import ResNetDescriptor
from ...errors import InputError, ModelError
from ...formats.atomic import whole
from ...formats.checkpoint import TRAINING, load_checkpoint, save_checkpoint
from ...formats.outputs import check_file
from ...models.patient import Model, encoder_config, fingerprints
from ...runtime.progress import Progress
from .. import distributed
from ..curriculum import PUBLISHED_EPOCHS, hardness, learning_rate, rotation_deg
from ..losses import info_nce, select_negatives, triplet
from .config import PublishedConfig
from .data import Case, build_case, cut_patches, draw, find_cases, read_scaled
from .evaluation import evaluate as test

__all__ = ["test", "train"]


def train(
    config: Path,
    data_dir: Path,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    resume: bool = True,
    report: Callable[[Progress], None] | None = None,
) -> Model:
    """Train the patch descriptor on ``img/mr`` and ``img/synthetic_us``.

    Three files are written: ``output`` (`Model.load` reads it), its twin ``.pth`` (the plain
    state dict, entries named as in the release), and its twin ``.training.pt`` (to resume from).
    Under ``torchrun`` every process takes its share of each batch; the first one writes.

    Args:
        config: YAML, see `PublishedConfig`.
        data_dir: see `published_data`.
        output: must end in ``.pt``.
        device: where to train; under ``torchrun`` "cuda" means one GPU for each process.
        seed: of everything random.
        resume: go on from ``.training.pt`` when it is there.
        report: called after every epoch; its steps are epochs, its precision is None.

    Raises:
        InputError: settings or images that cannot be used, or a file that cannot be written.
        ModelError: ``.training.pt`` belongs to another run.
    """
    settings = PublishedConfig.read(config)
    check_file(output, (".pt",))
    device = distributed.own_device(device)
    spacing = settings.network().patch_spacing_mm
    cases, image_fingerprints = [], []
    for files in find_cases(data_dir, "synthetic_us"):
        mri, ius = read_scaled(files.mri, device), read_scaled(files.synthetic, device)
        image_fingerprints += [*fingerprints(mri), *(path.name for path in files.synthetic)]
        data = settings.data
        case = build_case(files.name, mri, ius, data.patch_size * spacing, data.min_inside)
        mri, ius = ([v.smoothed(spacing) for v in volumes] for volumes in (mri, ius))
        cases.append(replace(case, mri=mri, ius=ius))
    rank, world = distributed.join(device)
    run = _Run(settings, cases, device, seed, image_fingerprints, rank, world)
    history = run.go(output.with_suffix(".training.pt"), resume, report)
    model = Model(run.encoder.eval(), output.name.removesuffix(".pt"), (), None, history)
    if rank == 0:
        _export(run.encoder, output.with_suffix(".pth"))
        model.save(output)
    return model


def _export(encoder: ResNetDescriptor, path: Path) -> None:
    """The state dict alone, as the release names and lays out its entries."""
    state = {k: v.cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
    with whole(path) as temporary:
        torch.save(state, temporary)


class _Run:
    """Each epoch draws from a generator seeded by (seed, epoch) alone; resuming needs no more."""

    def __init__(
        self,
        settings: PublishedConfig,
        cases: Sequence[Case],
        device: torch.device,
        seed: int,
        image_fingerprints: Sequence[str],
        rank: int,
        world: int,
    ) -> None:
        self.settings, self.cases, self.device, self.seed = settings, cases, device, seed
        self.rank, self.world = rank, world
        generator = torch.Generator().manual_seed(seed)
        self.encoder = ResNetDescriptor(settings.network(), generator).to(device)
        self.optimizer = torch.optim.AdamW(
            self.encoder.parameters(),
            lr=settings.optimizer.learning_rate,
            weight_decay=settings.optimizer.weight_decay,
        )
        content = asdict(settings)
        for name in ("evaluation", "logger"):
            del content[name]
        del content["model"]["checkpoint_path"], content["trainer"]["checkpoint_every_n_epochs"]
        self.identity = f"published {content} seed {seed} images {','.join(image_fingerprints)}"
        self.epoch, self.seconds, self.loss = 0, 0.0, math.nan

    def go(
        self, checkpoint: Path, resume: bool, report: Callable[[Progress], None] | None
    ) -> dict[str, float | int | str]:
        if resume and checkpoint.exists():
            self._resume(checkpoint)
        distributed.check_together(self.epoch)
        distributed.same_start(self.encoder)
        trainer = self.settings.trainer
        while self.epoch < trainer.max_epochs:
            began = time.monotonic()
            self._run_epoch()
            self.epoch += 1
            self.seconds += time.monotonic() - began
            last = self.epoch == trainer.max_epochs
            if self.rank == 0 and (last or self.epoch % trainer.checkpoint_every_n_epochs == 0):
                self._save(checkpoint)
            if report is not None:
                report(Progress(self.epoch, trainer.max_epochs, self.loss, None, self.seconds))
        return {
            "epochs": self.epoch,
            "minutes": round(self.seconds / 60, 2),
            "loss": round(self.loss, 4),
            "seed": self.seed,
            "processes": self.world,
        }

    def _run_epoch(self) -> None:
        settings, data = self.settings, self.settings.data
        entropy = np.random.SeedSequence((self.seed, self.epoch))
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        case = self.cases[int(torch.randint(len(self.cases), (), generator=generator))]
        points, style = draw(case, data.num_samples, generator, data.min_distance, data.min_inside)
        contrast = torch.randint(len(case.mri), (len(points),), generator=generator)
        turns = random_rotations(len(points), self._angle_deg(), generator)
        order = torch.randperm(len(points), generator=generator)
        rate = settings.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.epoch, settings.trainer.max_epochs, rate.learning_rate, rate.eta_min
            )
        self.encoder.train()
        losses = []
        for whole_batch in order.split(data.batch_size):
            size = len(whole_batch) // self.world  # equal in all processes, or one would wait
            if size < 2:  # no negative, and no statistics to normalise by
                continue
            part = whole_batch[self.rank * size : (self.rank + 1) * size].to(self.device)
            losses.append(
                self._step(
                    points[part],
                    cut_patches(
                        case.mri,
                        contrast.to(self.device)[part],
                        points[part],
                        turns.to(self.device)[part] @ self._axes(),
                        data.patch_size,
                    ),
                    cut_patches(
                        case.ius,
                        style[part],
                        points[part],
                        self._axes().expand(size, 3, 3),
                        data.patch_size,
                    ),
                    generator,
                )
            )
        if not losses:
            raise InputError(
                f"only {len(points)} training points fit into the field of view, too few for "
                f"{self.world} processes; lower data.min_distance or data.min_inside"
            )
        self.loss = statistics.fmean(losses)

    def _axes(self) -> torch.Tensor:
        return axes_rotation(self.encoder.config.patch_axes).to(self.device)

    def _angle_deg(self) -> float:
        """Largest rotation of the MRI patches about each axis in this epoch."""
        data = self.settings.data
        if not data.augment:
            return 0.0
        added = data.max_angle - data.initial_angle
        # A YAML means the epochs it names, whatever the length of its run.
        return data.initial_angle + rotation_deg(
            self.epoch, PUBLISHED_EPOCHS, data.angle_warmup_epochs, added
        )

    def _step(
        self,
        points: torch.Tensor,
        mri: torch.Tensor,
        ius: torch.Tensor,
        generator: torch.Generator,
    ) -> float:
        half = torch.autocast("cuda", torch.bfloat16) if mri.is_cuda else nullcontext()
        with half:
            fixed, moving = self.encoder(mri), self.encoder(ius)
        loss = self._loss(fixed, moving, points, generator)
        self.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(self.encoder)
        clip = self.settings.trainer.gradient_clip_val
        if clip is not None:
            nn.utils.clip_grad_norm_(self.encoder.parameters(), clip)
        self.optimizer.step()
        distributed.average_statistics(self.encoder)
        return float(loss.detach())

    def _loss(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        points: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        settings = self.settings.loss
        if settings.type == "infonce":
            return info_nce(fixed, moving, points, settings.temperature, settings.exclusion_mm)
        negatives = select_negatives(
            fixed.detach() @ moving.detach().T,
            points,
            settings.exclusion_mm,
            hardness(self.epoch, PUBLISHED_EPOCHS, settings.warmup_epochs),
            generator,
            settings.max_spatial_dist,
        )
        return triplet(fixed, moving, negatives, settings.margin)

    def _save(self, checkpoint: Path) -> None:
        save_checkpoint(
            checkpoint,
            self.encoder,
            encoder_config(self.encoder),
            TRAINING,
            self.optimizer,
            self.epoch,
            extra={"identity": self.identity, "seconds": self.seconds, "loss": self.loss},
        )

    def _resume(self, checkpoint: Path) -> None:
        saved = load_checkpoint(checkpoint, TRAINING)
        if saved.extra.get("identity") != self.identity:
            raise ModelError(
                f"{checkpoint} is a checkpoint of another training run; remove it, "
                "or train with the settings, seed and images it was made with"
            )
        load_checkpoint(checkpoint, TRAINING, self.encoder, self.optimizer)
        self.epoch, self.seconds = saved.step, saved.extra["seconds"]
        self.loss = saved.extra["loss"]
