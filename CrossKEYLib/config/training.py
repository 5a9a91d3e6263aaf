"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .values import Angle, Count, NotNegative, Positive, Settings, Share


@dataclass(frozen=True)
class LoopConfig(Settings):
    """What every training has. Give ``steps``, or ``minutes``."""

    minutes: Positive | None = None
    steps: Count | None = None  # wins over minutes; makes a run reproducible on any machine
    learning_rate: NotNegative = 7.5e-4
    weight_decay: NotNegative = 1e-2
    warmup_steps: Count = 50
    max_angle_deg: Angle = 35.0  # between two views, per axis
    curriculum_share: Share = 0.6  # of the run, until that angle is reached
    first_share: Share = 0.05  # of that angle, at the start
    crops: Count = 2  # per step
    points: Count = 1024  # per crop
    crop_mm: Positive = 64.0  # edge of a crop
    temperature: Positive = 0.07
    exclusion_mm: NotNegative = 4.0  # nearer places are no negatives
    evaluations: Count = 20  # on held-out pairs, over the run
    held_out: Count = 12  # pairs
    frozen_statistics: bool = False  # of batch normalisation: a few views must not replace them
    patience: Count = 6  # evaluations without progress, after the curriculum, that end the run
    save_seconds: NotNegative = 30.0


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Training of the dense encoder on synthetic pairs.

    With twice this learning rate, untrained weights make all places look alike.
    """

    mri_share: Share = 0.0  # of the run, at first, in which the iUS shows the MRI in other tones
    position_weight: NotNegative = 0.3  # of the loss that tells a place from those around it
    position_nearest_mm: Positive = 1.5  # distance of these
    position_farthest_mm: Positive = 6.0
    position_places: Count = 24  # so many around each point

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position_farthest_mm < self.position_nearest_mm:
            raise InputError(
                f"{type(self).__name__}.position_farthest_mm: expected at least "
                f"position_nearest_mm, {self.position_nearest_mm:g}, "
                f"got {self.position_farthest_mm:g}"
            )


@dataclass(frozen=True)
class ViewConfig(Settings):
    """How much two views of the embedding's training differ."""

    crop_mm: Positive = 64.0
    shift_mm: NotNegative = 10.0  # of a view off the common place, per axis
    max_angle_deg: Angle = 30.0  # between the views, per axis
    max_scale: Share = 0.10
    bend_mm: NotNegative = 2.5  # deviation of the smooth bending of one view
    cut_share: Share = 0.3  # of the views that end at a random plane
    ultrasound_share: Share = 0.7  # of the pairs, where it can be simulated


@dataclass(frozen=True)
class UniversalTrainConfig(ViewConfig, LoopConfig):
    """Training of the universal embedding."""

    learning_rate: NotNegative = 1.5e-3
    crop_mm: Positive = 64.0
    points: Count = 512
    max_angle_deg: Angle = 30.0
    candidates: Count = 2048  # places per view that negatives are chosen from
    hard: Count = 256  # most similar of them
    diverse: Count = 256  # random ones of them
    others: Count = 256  # places of the other patients in the step
    coarse_exclusion_mm: NotNegative = 10.0  # nearer places are no negatives of the coarse head
    semantic_weight: NotNegative = 0.3
    semantic_temperature: Positive = 0.1


@dataclass(frozen=True)
class RoundsConfig(Settings):
    """Cross-modality learning: when a pair counts, and when the rounds end."""

    most: Count = 4  # rounds
    initial_steps: Count = 1000  # of training on one contrast alone, where no model is given
    inverse_consistency_mm: Positive = 4.0  # at most
    least_gain: float = 0.02  # share by which the held-out error must fall for another round
    points: Count = 300  # that are sought in each held-out image
