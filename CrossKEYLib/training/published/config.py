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
from typing import Annotated, Any, Literal

from ...config import MatchConfig, ResNetConfig, Settings, from_mapping, read_yaml
from ...config.values import (
    Angle,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    PositiveShare,
    Range,
    Share,
)
from ...descriptors.resnet import PUBLISHED_AXES
from ...errors import InputError

AtLeastTwo = Annotated[int, Range(2)]

# In published files, but without a meaning here: patches are cut on the device, the device is an
# argument, and the place of the results is one too.
WITHOUT_MEANING = {
    "loss": {"spatial_weight"},
    "trainer": {"accelerator", "devices", "log_every_n_steps", "precision"},
    "data": {"num_workers"},
    "logger": {"type", "save_dir", "name", "project", "tags"},
}


@dataclass(frozen=True)
class ModelSection(Settings):
    out_dim: Count = 512  # length of a descriptor
    input_channels: Literal[1] = 1
    width: Count = 64  # channels of the first stage
    checkpoint_path: str | None = None  # what `test` loads when it is not told otherwise


@dataclass(frozen=True)
class LossSection(Settings):
    type: Literal["triplet", "infonce", "info_nce"] = "triplet"
    margin: NotNegative = 1.0
    temperature: Positive = 0.1
    warmup_epochs: CountOrZero = 200  # until negatives are the hardest of the batch
    max_spatial_dist: Positive = 48.0  # mm; farther places are equally far
    exclusion_mm: NotNegative = 5.0  # nearer places are no negatives


@dataclass(frozen=True)
class OptimizerSection(Settings):
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 2e-3
    eta_min: NotNegative = 1e-6  # learning rate at the end


@dataclass(frozen=True)
class TrainerSection(Settings):
    max_epochs: Count = 2000
    gradient_clip_val: Positive | None = None
    checkpoint_every_n_epochs: Count = 1


@dataclass(frozen=True)
class DataSection(Settings):
    batch_size: AtLeastTwo = 256  # over all processes
    patch_size: Count = 32  # samples a side, 1 mm apart
    num_samples: AtLeastTwo = 1024  # points per epoch, over all processes
    grid_spacing: Positive = 8.0  # mm, between the iUS points that are tested
    augment: bool = True  # rotate the MRI patches
    max_angle: Angle = 30.0  # degrees about each axis
    initial_angle: Angle = 0.0
    angle_warmup_epochs: CountOrZero = 1000
    min_distance: NotNegative = 4.0  # mm, between the points of an epoch
    min_inside: Share = 0.8  # share of a patch inside the field of view


@dataclass(frozen=True)
class EvaluationSection(Settings):
    knn_k: Literal[1] = 1
    # Between the descriptors of a match.
    distance_threshold: Annotated[float, Range(0, open_low=True, infinite=True)] = math.inf
    ratio_threshold: PositiveShare | None = 0.8
    mutual: bool = True
    metric: Literal["euclidean", "cosine"] = "euclidean"  # on unit vectors both rank alike
    max_distance: Positive = 5.0  # mm; a nearer match is right

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mutual and self.ratio_threshold is not None:
            raise InputError(
                f"{type(self).__name__}.ratio_threshold: a ratio test needs mutual: true; "
                "set ratio_threshold: null to match without both"
            )


@dataclass(frozen=True)
class LoggerSection(Settings):
    pass


@dataclass(frozen=True)
class PublishedConfig(Settings):
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
        defaults = cls()
        kinds: dict[str, type[Settings]] = {
            f.name: type(getattr(defaults, f.name)) for f in fields(cls)
        }
        sections: dict[str, Any] = {}
        for name, values in content.items():
            if name not in kinds:
                known = ", ".join(kinds)
                raise InputError(f"{path}: unknown section {name!r}; known sections: {known}")
            sections[name] = from_mapping(
                kinds[name],
                {} if values is None else values,
                f"{path}: {name}",
                WITHOUT_MEANING.get(name, ()),
            )
        config = cls(**sections)
        if config.loss.type == "info_nce":
            return replace(config, loss=replace(config.loss, type="infonce"))
        return config

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
