"""The YAML settings of the published CrossKEY code, section by section.

The names are those of the release of Morozov, Dorent and Haouchine (IEEE TMI 2026,
arXiv 2507.18551), and so are the defaults. What this project adds: ``model.width``,
``loss.exclusion_mm``, ``trainer.checkpoint_every_n_epochs``, ``data.min_distance`` and
``data.min_inside``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any

from ...config import MatchConfig, ResNetConfig
from ...descriptors.resnet import PUBLISHED_AXES
from ...errors import InputError
from ..settings import read_yaml, section

LOSSES = {"triplet": "triplet", "infonce": "infonce", "info_nce": "infonce"}
METRICS = ("euclidean", "cosine")  # on unit vectors both rank alike

# In published files, but without a meaning here: patches are cut on the device, the device is an
# argument, and the place of the results is one too.
WITHOUT_MEANING = {
    "loss": {"spatial_weight"},
    "trainer": {"accelerator", "devices", "log_every_n_steps", "precision"},
    "data": {"num_workers"},
    "logger": {"type", "save_dir", "name", "project", "tags"},
}
MAY_BE_ZERO = {
    "margin",
    "warmup_epochs",
    "exclusion_mm",
    "weight_decay",
    "eta_min",
    "max_angle",
    "initial_angle",
    "angle_warmup_epochs",
    "min_distance",
    "min_inside",
}


@dataclass(frozen=True)
class ModelSection:
    out_dim: int = 512  # length of a descriptor
    input_channels: int = 1
    width: int = 64  # channels of the first stage
    checkpoint_path: str | None = None  # what `test` loads when it is not told otherwise


@dataclass(frozen=True)
class LossSection:
    type: str = "triplet"
    margin: float = 1.0
    temperature: float = 0.1
    warmup_epochs: int = 200  # until negatives are the hardest of the batch
    max_spatial_dist: float = 48.0  # mm; farther places are equally far
    exclusion_mm: float = 5.0  # nearer places are no negatives


@dataclass(frozen=True)
class OptimizerSection:
    learning_rate: float = 1e-3
    weight_decay: float = 2e-3
    eta_min: float = 1e-6  # learning rate at the end


@dataclass(frozen=True)
class TrainerSection:
    max_epochs: int = 2000
    gradient_clip_val: float | None = None
    checkpoint_every_n_epochs: int = 1


@dataclass(frozen=True)
class DataSection:
    batch_size: int = 256  # over all processes
    patch_size: int = 32  # samples a side, 1 mm apart
    num_samples: int = 1024  # points per epoch, over all processes
    grid_spacing: float = 8.0  # mm, between the iUS points that are tested
    augment: bool = True  # rotate the MRI patches
    max_angle: float = 30.0  # degrees about each axis
    initial_angle: float = 0.0
    angle_warmup_epochs: int = 1000
    min_distance: float = 4.0  # mm, between the points of an epoch
    min_inside: float = 0.8  # share of a patch inside the field of view


@dataclass(frozen=True)
class EvaluationSection:
    knn_k: int = 1
    distance_threshold: float = math.inf  # between the descriptors of a match
    ratio_threshold: float | None = 0.8
    mutual: bool = True
    metric: str = "euclidean"
    max_distance: float = 5.0  # mm; a nearer match is right


@dataclass(frozen=True)
class LoggerSection:
    pass


@dataclass(frozen=True)
class PublishedConfig:
    """One field per section of the YAML."""

    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    trainer: TrainerSection = TrainerSection()
    data: DataSection = DataSection()
    evaluation: EvaluationSection = EvaluationSection()
    logger: LoggerSection = LoggerSection()

    @classmethod
    def read(cls, path: str | PathLike[str]) -> PublishedConfig:
        """Read a published YAML; sections and keys left out keep the published values.

        Raises:
            InputError: unreadable, an unknown section or key, or a value that cannot be used.
        """
        content = read_yaml(path)
        content = {} if content is None else content
        if not isinstance(content, Mapping):
            raise InputError(f"{path}: expected sections, got {type(content).__name__}")
        defaults = {f.name: f.default for f in fields(cls)}
        unknown = [str(key) for key in content if key not in defaults]
        if unknown:
            raise InputError(
                f"{path}: unknown section {unknown[0]!r}; known sections: {', '.join(defaults)}"
            )
        sections = {}
        for name, values in content.items():
            ignored = WITHOUT_MEANING.get(name, ())
            kind = type(defaults[name])
            sections[name] = section(
                kind, {} if values is None else values, f"{path}: {name}", ignored
            )
            _check_numbers(sections[name], f"{path}: {name}")
        config = cls(**sections)
        _check(config, path)
        return replace(config, loss=replace(config.loss, type=LOSSES[config.loss.type]))

    def network(self) -> ResNetConfig:
        """What the descriptor is built with; its patches lie as in the release."""
        model = self.model
        return ResNetConfig(
            model.width, model.out_dim, self.data.patch_size, patch_axes=PUBLISHED_AXES
        )

    def matching(self) -> MatchConfig:
        """Nearest, mutual or mutual with ratio test, every match kept."""
        evaluation = self.evaluation
        method = "nearest"
        if evaluation.mutual:
            method = "mutual" if evaluation.ratio_threshold is None else "ratio"
        return MatchConfig(
            method,
            ratio=evaluation.ratio_threshold or 1.0,
            second_best_radius_mm=evaluation.max_distance,
            max_matches=2**31,
        )


def _check_numbers(values: Any, where: str) -> None:
    for field in fields(values):
        value = getattr(values, field.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        least = "at least 0" if field.name in MAY_BE_ZERO else "above 0"
        if value < 0 or (value == 0 and least == "above 0"):
            raise InputError(f"{where}.{field.name}: expected a number {least}, got {value}")
        if math.isinf(value) and field.name != "distance_threshold":
            raise InputError(f"{where}.{field.name}: expected a finite number, got {value}")


def _check(config: PublishedConfig, path: str | PathLike[str]) -> None:
    model, loss, data, evaluation = config.model, config.loss, config.data, config.evaluation
    if model.input_channels != 1:
        raise InputError(f"{path}: model.input_channels: expected 1, got {model.input_channels}")
    if loss.type not in LOSSES:
        raise InputError(f"{path}: loss.type: expected triplet or infonce, got {loss.type!r}")
    if data.batch_size < 2 or data.num_samples < 2:
        raise InputError(f"{path}: data: batch_size and num_samples must be at least 2")
    if data.min_inside > 1:
        raise InputError(f"{path}: data.min_inside: expected 0 to 1, got {data.min_inside}")
    if evaluation.knn_k != 1:
        raise InputError(f"{path}: evaluation.knn_k: only 1 is supported, got {evaluation.knn_k}")
    if evaluation.metric not in METRICS:
        raise InputError(
            f"{path}: evaluation.metric: expected {' or '.join(METRICS)}, got {evaluation.metric!r}"
        )
    if not evaluation.mutual and evaluation.ratio_threshold is not None:
        raise InputError(
            f"{path}: evaluation: a ratio test needs mutual: true; "
            "set ratio_threshold: null to match without both"
        )
