"""A universal embedding model from a YAML list of patients and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...descriptors.uae import UAEConfig, UAENetwork
from ...errors import EstimationError, InputError
from ...formats.atomic import check_writable, write_json
from ...geometry.intensity import gamma_normalised
from ...geometry.volume import Volume
from ...landmarks.atlas import carry_labels
from ...models.patient import fingerprint
from ...models.universal import UniversalModel
from .. import distributed
from ..loop import Report
from ..settings import check_sections, file_beside, read_yaml, section
from .rounds import Patient, Round, RoundsConfig, learn_in_rounds, subject_of
from .train import UniversalTrainConfig, train_universal
from .views import Subject

SECTIONS = ("network", "training", "patients", "held_out", "rounds")
KEYS = ("name", "images", "labels", "atlas", "ultrasound", "unregistered", "sweeps")
ATLAS_KEYS = ("image", "labels")
RESTART = 0.5  # of the learning rate, for weights that are trained already


@dataclass(frozen=True)
class AtlasFiles:
    """A labelled head in a world of its own."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class SubjectFiles:
    """One patient: contrasts in one world, a label volume or an atlas to carry one from where there
    is one, whether ultrasound is simulated from them, and images in worlds of their own; see
    `rounds.Patient`."""

    name: str
    images: tuple[Path, ...]
    labels: Path | None = None
    atlas: AtlasFiles | None = None
    ultrasound: bool = False
    unregistered: tuple[Path, ...] = ()
    sweeps: tuple[Path, ...] = ()


@dataclass(frozen=True)
class UniversalPlan:
    """Content of the YAML."""

    network: UAEConfig
    training: UniversalTrainConfig
    patients: tuple[SubjectFiles, ...]
    held_out: tuple[SubjectFiles, ...] = ()
    rounds: RoundsConfig | None = None


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
    after_round: Callable[[Round], None] | None = None,
) -> UniversalModel:
    """Train a universal embedding on the patients that a YAML lists.

    Under ``torchrun`` every process draws views of its own and the gradients are averaged; only
    the first process writes. Where the YAML asks for rounds, each registers images that lie apart
    with the model of the round before, and what became of them is written beside the model
    (``.rounds.json``).

    Args:
        data: YAML, see `read_plan`.
        output: where the model goes; must end in ``.pt``.
        start: model to go on from, whose network it keeps; views then differ as much as they may
            from the first step, and the learning rate is `RESTART` of the configured one.
        minutes, steps: length of the run, or of each round, in place of what the YAML says.
        device: where to train; under ``torchrun`` "cuda" means one GPU for each process.
        seed: of everything random, the initial weights included.
        checkpoint: resumed from when it is there, written while training.
        report: called after every training step.
        after_round: called after every round.

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
    loaded = [_load(entry, start, device) for entry in plan.patients]
    patients, image_fingerprints = (
        [patient for patient, _ in loaded],
        ",".join(mark for _, mark in loaded),
    )
    trainer = _Trainer(plan, config, output, device, seed, checkpoint, image_fingerprints, report)
    if plan.rounds is None:
        model, rounds = trainer.run(start, [subject_of(patient) for patient in patients]), []
    else:
        held_out = [_load(entry, start, device)[0] for entry in plan.held_out]
        begun = None if start is None else start.to(device)
        model, rounds = learn_in_rounds(
            patients, held_out, begun, trainer.round, plan.rounds, seed=seed, report=after_round
        )
        errors = ", ".join(f"{done.held_out_mm:.2f}" for done in rounds)
        history = {**model.history, "held_out_mm": errors}
        model = UniversalModel(model.network, trainer.name, history)
    if distributed.is_first():
        if rounds:
            write_json([asdict(done) for done in rounds], output.with_suffix(".rounds.json"))
        model.save(output)
        for done in rounds:
            if (left := trainer.checkpoint_of(done.number)) is not None:
                left.unlink(missing_ok=True)
    return model


@dataclass(frozen=True)
class _Trainer:
    """One or several runs of training, as the plan says.

    Attributes:
        config: the plan's, of the length that was asked for.
        image_fingerprints: fingerprints of all images.
    """

    plan: UniversalPlan
    config: UniversalTrainConfig
    output: Path
    device: torch.device
    seed: int
    checkpoint: Path | None
    image_fingerprints: str
    report: Report | None

    @property
    def name(self) -> str:
        return self.output.name.removesuffix(".pt")

    def run(self, start: UniversalModel | None, subjects: list[Subject]) -> UniversalModel:
        """The only run."""
        return self._train(start, subjects, self.config, self.seed, self.checkpoint)

    def round(
        self, number: int, model: UniversalModel | None, subjects: list[Subject]
    ) -> UniversalModel:
        """That of one round, with a seed and a checkpoint of its own; a `rounds.Train`."""
        config = self.config
        if model is None and self.plan.rounds is not None:
            config = replace(config, steps=self.plan.rounds.initial_steps)
        kept = self.checkpoint_of(number)
        return self._train(model, subjects, config, self.seed + number, kept, f" round {number}")

    def checkpoint_of(self, number: int) -> Path | None:
        """Where the training of a round is kept until all rounds are done."""
        if self.checkpoint is None:
            return None
        return self.checkpoint.with_name(f"{number}-{self.checkpoint.name}")

    def _train(
        self,
        start: UniversalModel | None,
        subjects: list[Subject],
        config: UniversalTrainConfig,
        seed: int,
        checkpoint: Path | None,
        turn: str = "",
    ) -> UniversalModel:
        network, config = _begun(self.plan.network, config, start, seed)
        began = "" if start is None else f" from {start.name}"
        history = train_universal(
            network.to(self.device),
            subjects,
            config,
            seed=seed,
            checkpoint=checkpoint,
            identity=f"uae {network.config}{began}{turn} on {self.image_fingerprints}",
            report=self.report,
        )
        data = ", ".join(patient.name for patient in self.plan.patients)
        return UniversalModel(network.eval(), self.name, {**history, "data": data})


def read_plan(path: Path) -> UniversalPlan:
    """Read the settings and patients of a training; paths are relative to the YAML.

    Raises:
        InputError: anything missing, misspelt or of the wrong kind.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not content.get("patients"):
        raise InputError(f"{path}: expected the sections {', '.join(SECTIONS)}, patients at least")
    check_sections(path, content, SECTIONS)
    patients, held_out = (_entries(path, content, key) for key in ("patients", "held_out"))
    rounds = content.get("rounds")
    if rounds is not None:
        rounds = section(RoundsConfig, rounds, f"{path}: rounds")
        if not held_out:
            raise InputError(f"{path}: rounds end by patients that are held_out; list at least one")
    elif held_out or any(patient.unregistered or patient.sweeps for patient in patients):
        raise InputError(f"{path}: held_out, unregistered and sweeps need the section rounds")
    return UniversalPlan(
        section(UAEConfig, content.get("network") or {}, f"{path}: network"),
        section(UniversalTrainConfig, content.get("training") or {}, f"{path}: training"),
        patients,
        held_out,
        rounds,
    )


def _entries(path: Path, content: dict[str, Any], key: str) -> tuple[SubjectFiles, ...]:
    """The patients listed under ``patients`` or ``held_out``."""
    listed = content.get(key) or []
    if not isinstance(listed, list):
        raise InputError(f"{path}: {key}: expected a list, each with a name and images")
    found = tuple(_entry(path, number, entry) for number, entry in enumerate(listed, 1))
    if len({patient.name for patient in found}) < len(found):
        raise InputError(f"{path}: two patients have the same name; give each its own")
    return found


def _entry(path: Path, number: int, entry: Any) -> SubjectFiles:
    where = f"{path}: patient {number}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected name and images, got {entry!r}")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(KEYS)}")
    name, images, labels, atlas, ultrasound, *apart = (entry.get(key) for key in KEYS)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: expected a name, got {name!r}")
    if not isinstance(images, list) or not images:
        raise InputError(f"{where} ({name}): expected a list of images, got {images!r}")
    if ultrasound not in (None, True, False):
        raise InputError(f"{where} ({name}): ultrasound: expected true or false, got {ultrasound}")
    for key, listed in zip(("unregistered", "sweeps"), apart, strict=True):
        if listed is not None and not isinstance(listed, list):
            raise InputError(f"{where} ({name}): {key}: expected a list of images, got {listed!r}")
    found, unregistered, sweeps = (
        tuple(file_beside(path, image, f"{where} ({name})") for image in listed or [])
        for listed in (images, *apart)
    )
    known = None if labels is None else file_beside(path, labels, f"{where} ({name})")
    carried = None if atlas is None else _atlas(path, atlas, f"{where} ({name})")
    if known and carried:
        raise InputError(f"{where} ({name}): give labels or an atlas to carry them from, not both")
    return SubjectFiles(name, found, known, carried, bool(ultrasound), unregistered, sweeps)


def _atlas(path: Path, entry: Any, where: str) -> AtlasFiles:
    if not isinstance(entry, dict) or set(entry) != set(ATLAS_KEYS):
        raise InputError(f"{where}: atlas: expected image and labels, got {entry!r}")
    return AtlasFiles(*(file_beside(path, entry[key], f"{where}: atlas") for key in ATLAS_KEYS))


def _load(
    files: SubjectFiles, start: UniversalModel | None, device: torch.device
) -> tuple[Patient, str]:
    """One patient's images, and the fingerprint of all. Labels of an atlas are carried by the
    model to start from, or the bundled one.

    Raises:
        InputError: an image cannot be read or is constant, or its atlas finds no place.
    """
    images, unregistered, sweeps = (
        tuple(Volume.read(path) for path in paths)
        for paths in (files.images, files.unregistered, files.sweeps)
    )
    labels = None if files.labels is None else Volume.read(files.labels)
    every = [*images, *unregistered, *sweeps, *([labels] if labels else [])]
    if files.atlas is not None:
        atlas, known = (Volume.read(path) for path in (files.atlas.image, files.atlas.labels))
        every += [atlas, known]  # and not what is carried, whose last bits another run may change
        model = (start or UniversalModel.load()).to(device)
        try:
            given = atlas.to(device), known.to(device), images[0].to(device)
            labels = carry_labels(*given, model).to("cpu")
        except EstimationError as error:
            raise InputError(f"patient {files.name}: {error}") from error
    mark = ",".join(fingerprint(image) for image in every)
    shown = tuple(gamma_normalised(sweep) for sweep in sweeps)
    return Patient(files.name, images, labels, files.ultrasound, unregistered, shown), mark


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
