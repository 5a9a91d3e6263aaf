"""A general model from a YAML: the dense encoder, trained on the MRI of many patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...config import DenseConfig, TrainConfig
from ...descriptors.dense import DenseEncoder
from ...errors import InputError
from ...formats.outputs import check_file
from ...geometry.intensity import rescaled
from ...geometry.volume import Volume
from ...models.patient import Model, fingerprints
from ...synthesis.anatomy import read_anatomy
from .. import distributed
from ..loop import Report
from ..plan import Entry, PlanFile, of_length
from .pairs import Patient
from .prepare import encoder_from, keypoint_saliency
from .train import train

SECTIONS = ("network", "training", "patients")
KEYS = ("name", "images", "brain")


@dataclass(frozen=True)
class PatientFiles:
    """One entry of the list: contrasts in one world, and a brain mask where one is known."""

    name: str
    images: tuple[Path, ...]
    brain: Path | None = None


@dataclass(frozen=True)
class PretrainPlan:
    """Content of the YAML."""

    network: DenseConfig
    training: TrainConfig
    patients: tuple[PatientFiles, ...]


def pretrain(
    data: Path,
    output: Path,
    *,
    start: Model | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> Model:
    """Train a general model by matching-by-synthesis on the MRI of several patients.

    Under ``torchrun`` every process draws pairs of its own and the gradients are averaged; only
    the first process writes.

    Args:
        data: YAML, see `read_plan`.
        output: where the model goes; must end in ``.pt``.
        start: general model to continue from, whose network it keeps; training then begins with
            the full rotations and without MRI in other tones. Untrained weights when missing.
        minutes, steps: length of the run, in place of what the YAML says.
        device: where to train; under ``torchrun`` "cuda" means one GPU for each process.
        seed: of everything random, the initial weights included.
        checkpoint: resumed from when it is there, written while training.
        report: called after every training step.

    Raises:
        InputError: the YAML or an image cannot be used, or a file cannot be written.
        ModelError: the checkpoint belongs to another run, or ``start`` is no dense model.
    """
    plan = read_plan(data)
    config = of_length(plan.training, minutes, steps)
    check_file(output, (".pt",))
    device = distributed.own_device(device)
    patients, image_fingerprints = [], []
    for entry in plan.patients:
        patient, own = _load(entry, device)
        patients += [patient] * len(patient.contrasts)  # each image equally often
        image_fingerprints += own
    if start is None:
        network = _seeded(plan.network, seed).to(device)
    else:
        network = encoder_from(start, device, "pretrain")
        config = replace(config, first_share=1.0, mri_share=0.0)
    began = "" if start is None else f" from {start.name}"
    history = train(
        network,
        patients,
        config,
        seed=seed,
        checkpoint=checkpoint,
        identity=f"pretrain {network.config}{began} on {','.join(image_fingerprints)}",
        report=report,
    )
    names = ", ".join(entry.name for entry in plan.patients)
    model = Model(network, output.name.removesuffix(".pt"), (), None, {**history, "data": names})
    if distributed.is_first():
        model.save(output)
    return model


def read_plan(path: Path) -> PretrainPlan:
    """Read the settings and patients of a training; paths are relative to the YAML.

    Raises:
        InputError: anything missing, misspelt or of the wrong kind.
    """
    plan = PlanFile.read(path, SECTIONS)
    return PretrainPlan(
        plan.settings("network", DenseConfig),
        plan.settings("training", TrainConfig),
        plan.patients("patients", KEYS, _files),
    )


def _files(entry: Entry) -> PatientFiles:
    return PatientFiles(entry.name, entry.files("images", needed=True), entry.file("brain"))


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
