"""Before surgery: a patient's own model, trained by matching-by-synthesis on their MRI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ...config import SiftConfig, TrainConfig
from ...descriptors.dense import DenseEncoder
from ...errors import InputError, ModelError
from ...formats.checkpoint import checkpoint_beside
from ...formats.options import ReadOptions
from ...formats.outputs import check_file
from ...formats.volumes import read_folder, read_volume
from ...geometry.intensity import rescaled
from ...geometry.volume import Grid, Volume
from ...keypoints.heatmap import heatmap
from ...keypoints.sift3d import detect
from ...models.patient import Model, describe_brain, fingerprints
from ...runtime.progress import silent
from ...runtime.resources import resource
from ...synthesis.anatomy import Anatomy, read_anatomy
from ...synthesis.simulator import simulate
from .. import distributed
from ..loop import Report
from .pairs import Patient
from .train import train

HEATMAP_STYLES = 6  # synthetic volumes whose keypoints are counted
HEATMAP_SIFT = SiftConfig(peak_threshold=0.05, corner_threshold=0.0)  # many, weak ones too
SYNTHETIC_SEED = 77

# Starts from a trained encoder.
PATIENT = TrainConfig(learning_rate=1e-4, first_share=1.0, frozen_statistics=True)
KEPT = 0.25  # of what was learned, see `_between`


def prepare(
    mri: Sequence[Volume],
    *,
    start: Model | None = None,
    synthetic: Sequence[Volume] = (),
    config: TrainConfig = PATIENT,
    minutes: float | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    name: str = "patient",
    report: Report | None = None,
    progress: Callable[[str], None] | None = None,
) -> Model:
    """Train a model for one patient and describe the points of their MRI.

    Args:
        mri: one or several contrasts of one patient in one world; the first is registered to.
        start: model to start from; the bundled general one when missing.
        synthetic: ready-made synthetic iUS in the MRI's world; simulated when empty.
        config: length and settings of the training.
        minutes: time budget; wins over ``config``.
        device: where to train.
        seed: of everything random.
        checkpoint: resumed from when there, written while training.
        name: shown in reports.
        report: called after every training step.
        progress: called with the name of each stage.

    Raises:
        InputError: the MRI cannot be used.
        ModelError: the start or the checkpoint does not fit.
    """
    tell = progress or silent
    if not mri:
        raise InputError("prepare needs at least one MRI")
    start = start or Model.load()
    encoder = encoder_from(start, device, "prepare")
    if minutes is not None:
        config = replace(config, minutes=minutes)
    tell("anatomy")
    contrasts = [volume.to(device) for volume in mri]
    anatomy = read_anatomy(contrasts)
    scaled = [rescaled(volume) for volume in contrasts]
    ready = [rescaled(volume.to(device)) for volume in synthetic]
    tell("keypoint heatmap")
    saliency = keypoint_saliency(scaled, anatomy, ready)
    patient = Patient(scaled, anatomy, saliency, ready)
    image_fingerprints = fingerprints(mri)
    tell("training")
    identity = f"prepare {','.join(image_fingerprints)} from {start.name} synthetic {len(ready)}"
    history = train(
        encoder,
        [patient, rehearsal(device)],
        config,
        seed=seed,
        checkpoint=checkpoint,
        identity=identity,
        report=report,
    )
    _between(start.encoder, encoder)
    tell("MRI descriptors")
    model = Model(encoder, name, image_fingerprints, None, {**history, "start": start.name})
    return replace(model, described=describe_brain(model, scaled[0], anatomy.brain))


def prepare_file(
    mri: Sequence[Path],
    output: Path,
    *,
    synthetic_us: Path | None = None,
    start: Path | None = None,
    options: ReadOptions | None = None,
    minutes: float | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Report | None = None,
    progress: Callable[[str], None] | None = None,
) -> Model:
    """`prepare` from files to a file. An interrupted run goes on from its checkpoint, which lies
    beside the output until that is written.

    Args:
        mri: files or DICOM folders.
        output: of the model, ``.pt``; its name becomes the model's.
        synthetic_us: folder of ready-made synthetic iUS.
        start: model to start from.
        options: what to read of files and folders that hold several images.
        minutes, device, seed, report, progress: as in `prepare`.

    Raises:
        InputError: an image cannot be used, or a file cannot be written.
        ModelError: the start or the checkpoint does not fit.
    """
    checkpoint = checkpoint_beside(output)
    for path in (output, checkpoint):
        check_file(path, (".pt",))
    (progress or silent)("reading")
    made = prepare(
        [read_volume(path, options) for path in mri],
        start=None if start is None else Model.load(start),
        synthetic=[] if synthetic_us is None else read_folder(synthetic_us),
        minutes=minutes,
        device=device,
        seed=seed,
        checkpoint=checkpoint,
        name=output.stem,
        report=report,
        progress=progress,
    )
    if distributed.is_first():
        made.save(output)
        checkpoint.unlink(missing_ok=True)
    return made


def encoder_from(start: Model, device: torch.device | str, purpose: str) -> DenseEncoder:
    """A copy of a model's encoder to train; the model stays as it is.

    Raises:
        ModelError: it is no dense model; the text names the purpose.
    """
    if not isinstance(start.encoder, DenseEncoder):
        raise ModelError(
            f"the model {start.name!r} is a patch network; {purpose} needs a dense one"
        )
    encoder = DenseEncoder(start.encoder.config).to(device)
    encoder.load_state_dict(start.encoder.state_dict())
    return encoder


@torch.no_grad()
def _between(start: torch.nn.Module, encoder: torch.nn.Module) -> None:
    """Put the weights of ``encoder`` `KEPT` of the way from ``start`` to where training took them.

    Training on one patient also learns what only the simulation has: lines that follow the noise
    of this very MRI. Between the two sets of weights most of the gain remains and that loss does
    not (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
    """
    before = start.state_dict()
    for name, value in encoder.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(before[name].to(value), value, KEPT))


def rehearsal(device: torch.device | str) -> Patient:
    """The bundled MRI, which takes half of the steps.

    A small or cropped MRI can be learned by heart: where a place lies in the field of view then
    tells as much as what it looks like. On another brain that does not work.
    """
    mri = Volume.read(resource("SampleData/MRI.nii.gz")).to(device)
    anatomy = read_anatomy([mri])
    return Patient([rescaled(mri)], anatomy, anatomy.saliency())


def keypoint_saliency(
    contrasts: Sequence[Volume], anatomy: Anatomy, synthetic: Sequence[Volume]
) -> Volume:
    """Where training points are drawn: SIFT3D heatmap and visible structure.

    The keypoints of the MRI and those of synthetic iUS are counted and combined as in the paper
    (a + b - ab); the anatomy's own structure joins in the same way, so that long sulci, along
    which a blob detector rarely fires, take part too.

    Args:
        contrasts: scaled MRI.
        anatomy: of the same patient.
        synthetic: scaled iUS; simulated when empty.
    """
    generator = torch.Generator().manual_seed(SYNTHETIC_SEED)
    styles = list(synthetic[:HEATMAP_STYLES]) or [
        simulate(anatomy, generator).volume for _ in range(HEATMAP_STYLES)
    ]
    found = [
        [detect(volume, HEATMAP_SIFT, anatomy.brain) for volume in contrasts],
        [detect(volume, HEATMAP_SIFT) for volume in styles if bool((volume.array > 0).any())],
    ]
    structure = anatomy.saliency()
    heat = heatmap(found, Grid.of(structure))
    combined = heat.array + structure.array - heat.array * structure.array
    return structure.replaced(combined * (anatomy.brain.array > 0.5))
