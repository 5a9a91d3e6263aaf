"""A general model: the dense encoder trained on many patients' MRI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig
from ..descriptors.dense import DenseConfig, DenseEncoder
from ..errors import InputError
from ..model import Model, fingerprints
from ..synthesis.anatomy import read_anatomy
from ..volume import Volume, rescaled
from ..writing import check_writable
from . import distributed
from .pairs import Patient
from .prepare import encoder_from, keypoint_saliency
from .settings import read_yaml
from .train import Report, train

KEYS = ("name", "images", "brain")
TRAINING = TrainConfig()
ENCODER = DenseConfig()
RESTART = 0.5  # of the learning rate, for weights that are trained already


@dataclass(frozen=True)
class PatientFiles:
    """One entry of the list: contrasts in one world, and a brain mask where one is known."""

    name: str
    images: tuple[Path, ...]
    brain: Path | None = None


def pretrain(
    data: Path,
    output: Path,
    *,
    start: Model | None = None,
    config: TrainConfig = TRAINING,
    encoder: DenseConfig = ENCODER,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> Model:
    """Train a general model by matching-by-synthesis on the MRI of several patients.

    Under ``torchrun`` every process draws pairs of its own and the gradients are averaged; only
    the first process writes.

    Args:
        data: YAML, see `read_patients`.
        output: where the model goes; must end in ``.pt``.
        start: general model to go on from; untrained weights when missing.
        config: length and settings of the training. With ``start`` the full rotations come at
            once and the learning rate is `RESTART` of the configured one.
        encoder: size of the network; that of ``start`` when given.
        device: where to train; under ``torchrun`` "cuda" means one GPU for each process.
        seed: of everything random, the initial weights included.
        checkpoint: resumed from when it is there, written while training.
        report: called after every training step.

    Raises:
        InputError: the list or an image cannot be used, or a file cannot be written.
        ModelError: the checkpoint belongs to another run, or ``start`` is no dense model.
    """
    files = read_patients(data)
    if output.suffix != ".pt":
        raise InputError(f"{output}: the model's name must end in .pt")
    check_writable(output)
    device = distributed.own_device(device)
    patients, marks = [], []
    for entry in files:
        patient, own = _load(entry, device)
        patients += [patient] * len(patient.contrasts)  # each image equally often
        marks += own
    if start is None:
        network = _seeded(encoder, seed).to(device)
    else:
        network = encoder_from(start, device, "pretrain")
        encoder = network.config
        rate = RESTART * config.learning_rate
        config = replace(config, learning_rate=rate, first_share=1.0)
    began = "" if start is None else f" from {start.name}"
    history = train(
        network,
        patients,
        config,
        seed=seed,
        checkpoint=checkpoint,
        identity=f"pretrain {encoder}{began} on {','.join(marks)}",
        report=report,
    )
    names = ", ".join(entry.name for entry in files)
    model = Model(network, output.name.removesuffix(".pt"), (), None, {**history, "data": names})
    if distributed.is_first():
        model.save(output)
    return model


def read_patients(path: Path) -> list[PatientFiles]:
    """Read a list of patients, each ``name``, ``images`` and, if there is one, ``brain``.

    Paths are relative to the YAML.

    Raises:
        InputError: anything missing, misspelt or of the wrong kind.
    """
    content = read_yaml(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"{path}: expected a list of patients, each with a name and images")
    patients = [_entry(path, number, entry) for number, entry in enumerate(content, 1)]
    names = [patient.name for patient in patients]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two patients are called {name!r}; give each its own name")
    return patients


def _entry(path: Path, number: int, entry: Any) -> PatientFiles:
    where = f"{path}: patient {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected name and images, got {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(KEYS)}")
    name, images, brain = (entry.get(key) for key in KEYS)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected a name, got {name!r}")
    if not isinstance(images, list) or not images:
        raise InputError(f"{where} ({name}): expected a list of images, got {images!r}")
    found = [_existing(path, value, f"{where} ({name})") for value in images]
    mask = None if brain is None else _existing(path, brain, f"{where} ({name})")
    return PatientFiles(name, tuple(found), mask)


def _existing(path: Path, value: Any, where: str) -> Path:
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a path, got {value!r}")
    found = path.parent / value
    if not found.exists():
        raise InputError(f"{where}: there is no {found}; paths are relative to the list")
    return found


def _load(files: PatientFiles, device: torch.device) -> tuple[Patient, Sequence[str]]:
    """Read, scale and analyse one patient's images; also their fingerprints."""
    contrasts = [Volume.read(image).to(device) for image in files.images]
    brain = None
    if files.brain is not None:
        mask = Volume.read(files.brain).to(device)
        brain = mask.replaced((mask.array > 0).float())
    try:
        anatomy = read_anatomy(contrasts, brain)
        scaled = [rescaled(volume) for volume in contrasts]
        saliency = keypoint_saliency(scaled, anatomy, ())
    except InputError as error:
        raise InputError(f"patient {files.name}: {error}") from error
    return Patient(scaled, anatomy, saliency), fingerprints(contrasts)


def _seeded(config: DenseConfig, seed: int) -> DenseEncoder:
    """A new encoder whose weights depend on the seed alone; the caller's generator is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenseEncoder(config)
