"""A universal embedding model from a YAML list of patients and settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..descriptors.uae import UAEConfig, UAENetwork
from ..errors import InputError
from ..model import fingerprint
from ..universal import UniversalModel
from ..volume import Volume
from ..writing import check_writable
from . import distributed
from .settings import read_yaml, section
from .train import Report
from .universal import UniversalTrainConfig, train_universal
from .views import Subject, read_subject

SECTIONS = ("network", "training", "patients")
KEYS = ("name", "images", "labels", "ultrasound")
RESTART = 0.5  # of the learning rate, for weights that are trained already


@dataclass(frozen=True)
class SubjectFiles:
    """One patient: contrasts in one world, a label volume where there is one, and whether
    ultrasound is simulated from them."""

    name: str
    images: tuple[Path, ...]
    labels: Path | None = None
    ultrasound: bool = False


@dataclass(frozen=True)
class UniversalPlan:
    """Content of the YAML."""

    network: UAEConfig
    training: UniversalTrainConfig
    patients: tuple[SubjectFiles, ...]


def pretrain_universal(
    data: Path,
    output: Path,
    *,
    start: UniversalModel | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> UniversalModel:
    """Train a universal embedding on the patients that a YAML lists.

    Under ``torchrun`` every process draws views of its own and the gradients are averaged; only
    the first process writes.

    Args:
        data: YAML, see `read_plan`.
        output: where the model goes; must end in ``.pt``.
        start: model to go on from, whose network it keeps; views then differ as much as they may
            from the first step, and the learning rate is `RESTART` of the configured one.
        minutes, steps: length of the run, in place of what the YAML says.
        device: where to train; under ``torchrun`` "cuda" means one GPU for each process.
        seed: of everything random, the initial weights included.
        checkpoint: resumed from when it is there, written while training.
        report: called after every training step.

    Raises:
        InputError: the YAML or an image cannot be used, or a file cannot be written.
        ModelError: the checkpoint belongs to another run.
    """
    plan = read_plan(data)
    if output.suffix != ".pt":
        raise InputError(f"{output}: the model's name must end in .pt")
    check_writable(output)
    config = plan.training
    if minutes is not None or steps is not None:
        config = replace(config, minutes=minutes, steps=steps)
    device = distributed.own_device(device)
    loaded = [_load(entry) for entry in plan.patients]
    network, config = _begun(plan.network, config, start, seed)
    began = "" if start is None else f" from {start.name}"
    marks = ",".join(mark for _, mark in loaded)
    history = train_universal(
        network.to(device),
        [subject for subject, _ in loaded],
        config,
        seed=seed,
        checkpoint=checkpoint,
        identity=f"uae {network.config}{began} on {marks}",
        report=report,
    )
    names = ", ".join(entry.name for entry in plan.patients)
    model = UniversalModel(
        network.eval(), output.name.removesuffix(".pt"), {**history, "data": names}
    )
    if distributed.is_first():
        model.save(output)
    return model


def read_plan(path: Path) -> UniversalPlan:
    """Read the settings and patients of a training; paths are relative to the YAML.

    Raises:
        InputError: anything missing, misspelt or of the wrong kind.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not content.get("patients"):
        raise InputError(f"{path}: expected the sections {', '.join(SECTIONS)}, patients at least")
    for key in content:
        if key not in SECTIONS:
            raise InputError(f"{path}: unknown section {key!r}; known: {', '.join(SECTIONS)}")
    if not isinstance(content["patients"], list):
        raise InputError(f"{path}: patients: expected a list, each with a name and images")
    entries = enumerate(content["patients"], 1)
    patients = tuple(_entry(path, number, entry) for number, entry in entries)
    if len({patient.name for patient in patients}) < len(patients):
        raise InputError(f"{path}: two patients have the same name; give each its own")
    return UniversalPlan(
        section(UAEConfig, content.get("network") or {}, f"{path}: network"),
        section(UniversalTrainConfig, content.get("training") or {}, f"{path}: training"),
        patients,
    )


def _entry(path: Path, number: int, entry: Any) -> SubjectFiles:
    where = f"{path}: patient {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected name and images, got {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(KEYS)}")
    name, images, labels, ultrasound = (entry.get(key) for key in KEYS)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected a name, got {name!r}")
    if not isinstance(images, list) or not images:
        raise InputError(f"{where} ({name}): expected a list of images, got {images!r}")
    if ultrasound not in (None, True, False):
        raise InputError(f"{where} ({name}): ultrasound: expected true or false, got {ultrasound}")
    found = tuple(_existing(path, image, f"{where} ({name})") for image in images)
    known = None if labels is None else _existing(path, labels, f"{where} ({name})")
    return SubjectFiles(name, found, known, bool(ultrasound))


def _existing(path: Path, value: Any, where: str) -> Path:
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a path, got {value!r}")
    found = path.parent / value
    if not found.exists():
        raise InputError(f"{where}: there is no {found}; paths are relative to the list")
    return found


def _load(files: SubjectFiles) -> tuple[Subject, str]:
    """One patient's images on one grid, and the fingerprint of all."""
    images = [Volume.read(path) for path in files.images]
    labels = None if files.labels is None else Volume.read(files.labels)
    mark = ",".join(fingerprint(image) for image in [*images, *([labels] if labels else [])])
    return read_subject(files.name, images, labels, files.ultrasound), mark


def _begun(
    size: UAEConfig, config: UniversalTrainConfig, start: UniversalModel | None, seed: int
) -> tuple[UAENetwork, UniversalTrainConfig]:
    """The network to train, and how; new weights depend on the seed alone, and the caller's
    generator is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UAENetwork(size if start is None else start.network.config)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
        config = replace(config, first_share=1.0, learning_rate=RESTART * config.learning_rate)
    return network, config
