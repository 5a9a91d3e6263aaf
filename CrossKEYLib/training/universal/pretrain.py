"""A universal embedding model from a YAML list of patients and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ...config import RoundsConfig, UAEConfig, UniversalTrainConfig
from ...descriptors.uae import UAENetwork
from ...errors import EstimationError, InputError
from ...formats.atomic import write_json
from ...formats.outputs import check_file
from ...geometry.intensity import gamma_normalised
from ...geometry.volume import Volume
from ...landmarks.atlas import carry_labels
from ...models.patient import fingerprint
from ...models.universal import UniversalModel
from .. import distributed
from ..loop import Report
from ..plan import Entry, PlanFile, of_length
from .rounds import Patient, Round, learn_in_rounds, subject_of
from .train import train_universal
from .views import Subject

SECTIONS = ("network", "training", "patients", "held_out", "rounds")
KEYS = ("name", "images", "labels", "atlas", "ultrasound", "unregistered", "sweeps")
ATLAS_KEYS = ("image", "labels")
RESTART = 0.5  # of the learning rate, for weights that are trained already


@dataclass(frozen=True)
class AtlasFiles:
    """A labelled head with its own coordinate system."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class SubjectFiles:
    """One patient: contrasts in one coordinate system, a label volume or an atlas if there is one,
    whether ultrasound is simulated, and images with their own coordinate systems; see
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
    the first process writes. If the YAML has rounds, each round registers the unregistered images
    with the previous model. The registrations are written beside the model (``.rounds.json``).

    Args:
        data: YAML, see `read_plan`.
        output: where the model goes; must end in ``.pt``.
        start: model to continue from, whose network it keeps; views then have the largest
            differences from the first step, and the learning rate is `RESTART` of the configured
            one.
        minutes, steps: length of the run, or of each round, in place of what the YAML says.
        device, seed, checkpoint, report: as in `patient.pretrain.pretrain`.
        after_round: called after every round.

    Raises:
        InputError: the YAML or an image cannot be used, or a file cannot be written.
        ModelError: the checkpoint belongs to another run.
    """
    plan = read_plan(data)
    check_file(output, (".pt",))
    config = of_length(plan.training, minutes, steps)
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
    plan = PlanFile.read(path, SECTIONS)
    patients, held_out = (plan.patients(s, KEYS, _files) for s in ("patients", "held_out"))
    rounds = None
    if plan.sections.get("rounds") is not None:
        rounds = plan.settings("rounds", RoundsConfig)
        if not held_out:
            raise InputError(f"{path}: rounds end by patients that are held_out; list at least one")
    elif held_out or any(patient.unregistered or patient.sweeps for patient in patients):
        raise InputError(f"{path}: held_out, unregistered and sweeps need the section rounds")
    return UniversalPlan(
        plan.settings("network", UAEConfig),
        plan.settings("training", UniversalTrainConfig),
        patients,
        held_out,
        rounds,
    )


def _files(entry: Entry) -> SubjectFiles:
    atlas = entry.named_files("atlas", ATLAS_KEYS)
    files = SubjectFiles(
        entry.name,
        entry.files("images", needed=True),
        entry.file("labels"),
        None if atlas is None else AtlasFiles(**atlas),
        entry.flag("ultrasound"),
        entry.files("unregistered"),
        entry.files("sweeps"),
    )
    if files.labels and files.atlas:
        raise InputError(f"{entry.where}: give labels or an atlas to carry them from, not both")
    return files


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
        every += [atlas, known]  # not the carried labels, whose last bits may differ between runs
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
