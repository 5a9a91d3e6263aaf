"""Cross-modality learning in rounds: register with a model, train the next one on the result.

The images of one patient usually have different coordinate systems, so corresponding points are not
known. A first model is trained on one contrast, whose intensities are changed at random. It
registers each patient's other images well enough to train on them, and the next model registers
better (Bai et al., arXiv 2311.15111). A pair is kept only if its registration is inverse
consistent, and the rounds end when the error on held-out patients stops falling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...config import LandmarkMethod, RoundsConfig
from ...geometry import transform
from ...geometry.foreground import shown, shown_points
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from ...keypoints.sampling import moving_points
from ...landmarks.inverse_consistency import register_inverse_consistent
from ...landmarks.propagate import EmbeddedPair
from ...models.universal import UniversalModel
from ...runtime.progress import silent
from .views import Subject, read_subject

HELD_OUT_SEED = 10**6
MOTION = (15.0, 20.0)  # mm and degrees, of held-out images
NEAR_MM = 5.0


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient's images.

    Attributes:
        name: shown in messages.
        images: contrasts in one world, the first decides the extent.
        labels: structures in that world, for training.
        ultrasound: whether ultrasound is simulated from them.
        unregistered: further MRI or CT, each with its own coordinate system; of a held-out
            patient, with that of ``images``.
        sweeps: likewise ultrasound, gamma-normalised.
    """

    name: str
    images: tuple[Volume, ...]
    labels: Volume | None = None
    ultrasound: bool = False
    unregistered: tuple[Volume, ...] = ()
    sweeps: tuple[Volume, ...] = ()

    @property
    def others(self) -> tuple[Volume, ...]:
        return self.unregistered + self.sweeps


@dataclass(frozen=True, eq=False)
class Registered:
    """One image registered to the first image of its patient.

    Attributes:
        patient: its name.
        image: number in `Patient.others`.
        matrix: from the image's RAS mm to the first image's; None when nothing was found.
        inverse_consistency_mm: see `InverseConsistency`.
        kept: whether the round is trained on it.
    """

    patient: str
    image: int
    matrix: Matrix | None
    inverse_consistency_mm: float | None
    kept: bool


@dataclass(frozen=True, eq=False)
class Round:
    """The pairs and the errors of a round; round 0 is the first model.

    Attributes:
        number: of the round.
        pairs: registered by the previous model.
        held_out_mm: mean error of points found in held-out images by the new model.
        near: share of them within 5 mm.
        nearest_mm: mean error of their nearest neighbours alone.
    """

    number: int
    pairs: tuple[Registered, ...]
    held_out_mm: float
    near: float
    nearest_mm: float


# Trains a model from the number of the round, the previous model and subjects.
Train = Callable[[int, UniversalModel | None, list[Subject]], UniversalModel]


def learn_in_rounds(
    patients: Sequence[Patient],
    held_out: Sequence[Patient],
    start: UniversalModel | None,
    train: Train,
    config: RoundsConfig,
    *,
    seed: int = 0,
    report: Callable[[Round], None] | None = None,
) -> tuple[UniversalModel, list[Round]]:
    """Alternate between registration and training until the held-out error stops falling.

    Args:
        patients: with images to register.
        held_out: with images in one coordinate system; not used for training.
        start: the first model; trained on one contrast a patient when missing.
        train: makes the model of a round.
        config: when a pair is kept, and when the rounds end.
        seed: of registration and of held-out motions and points.
        report: called after every round, the start included.

    Returns:
        The model with the smallest held-out error, and all rounds.

    Raises:
        InputError: an image is constant.
    """
    report = report or silent
    if start is None:
        start = train(0, None, [subject_of(patient) for patient in patients])
    best, rounds = start, [Round(0, (), *held_out_error(start, held_out, config, seed))]
    report(rounds[-1])
    for number in range(1, config.most + 1):
        pairs = [register_patient(patient, best, config, seed) for patient in patients]
        subjects = [subject_of(p, found) for p, found in zip(patients, pairs, strict=True)]
        made = train(number, best, subjects)
        every = tuple(pair for found in pairs for pair in found)
        rounds.append(Round(number, every, *held_out_error(made, held_out, config, seed)))
        report(rounds[-1])
        *before, now = (done.held_out_mm for done in rounds)
        if now < min(before):
            best = made
        if now > (1 - config.least_gain) * before[-1]:
            break
    return best, rounds


def register_patient(
    patient: Patient, model: UniversalModel, config: RoundsConfig, seed: int = 0
) -> tuple[Registered, ...]:
    """Each of the other images to the first, and the first to it."""
    device = next(model.network.parameters()).device
    first, found = patient.images[0].to(device), []
    for number, other in enumerate(image.to(device) for image in patient.others):
        laid = register_inverse_consistent(first, other, model, seed=seed)
        error = laid.inverse_consistency_mm
        kept = error is not None and error <= config.inverse_consistency_mm
        found.append(Registered(patient.name, number, laid.matrix, error, kept))
    return tuple(found)


def held_out_error(
    model: UniversalModel, patients: Sequence[Patient], config: RoundsConfig, seed: int = 0
) -> tuple[float, float, float]:
    """Mean error (mm) of points of the first image found in every other image, which was moved by
    a known rigid motion; the share within 5 mm; and the mean error of nearest neighbours alone.

    The first one decides, because users find points by fixed-point matching; the nearest neighbour
    alone fails where a CT shows homogeneous tissue.
    """
    device = next(model.network.parameters()).device
    errors: dict[LandmarkMethod, list[torch.Tensor]] = {"fixed_point": [], "nearest": []}
    for p, patient in enumerate(patients):
        first, *others = (image.to(device) for image in patient.images + patient.others)
        here, in_first = model.embed(first), first.replaced(shown(first).float())
        for n, other in enumerate(others):
            rng = np.random.default_rng((HELD_OUT_SEED + seed, p, n))
            motion = transform.random_rigid(rng, *MOTION, other.centre_ras)
            is_sweep = n >= len(others) - len(patient.sweeps)
            points = _places(other, is_sweep, config.points, seed)
            points = points[in_first.sample(points) > 0.5]
            there = model.embed(other.moved(motion))
            pair, truth = EmbeddedPair(here, there), transform.apply(motion, points)
            for method, kept in errors.items():
                kept.append((pair.locate(points, method).points - truth).norm(dim=1))
    found, nearest = (torch.cat(kept) for kept in errors.values())
    return float(found.mean()), float((found < NEAR_MM).float().mean()), float(nearest.mean())


def subject_of(patient: Patient, pairs: Sequence[Registered] = ()) -> Subject:
    """The training data: the contrasts in one coordinate system, and the others that are kept."""
    laid = {
        pair.image: patient.others[pair.image].moved(pair.matrix)
        for pair in pairs
        if pair.kept and pair.matrix is not None
    }
    count = len(patient.unregistered)
    images = [*patient.images, *(laid[n] for n in range(count) if n in laid)]
    sweeps = [laid[n] for n in range(count, len(patient.others)) if n in laid]
    return read_subject(patient.name, images, patient.labels, patient.ultrasound, sweeps)


def _places(image: Volume, is_sweep: bool, count: int, seed: int) -> torch.Tensor:
    """Random points of an image, ``[N, 3]`` RAS mm; of ultrasound, on bright lines."""
    if is_sweep:
        return moving_points(image, count, torch.Generator().manual_seed(seed))
    return shown_points(image, count, seed)
