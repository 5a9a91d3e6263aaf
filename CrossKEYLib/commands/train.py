"""``crosskey prepare``, ``pretrain``, ``train`` and ``test``: everything that makes models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import (
    DONE,
    Contrasts,
    Json,
    Seed,
    say,
    say_json,
)
from .groups import Machine, Reading

if TYPE_CHECKING:
    from ..models.patient import Model
    from ..models.universal import UniversalModel
    from ..training.universal.rounds import Round

Minutes = Annotated[float, typer.Option(help="Time for training.", min=0.01)]
Output = Annotated[Path, typer.Option(help="Model to write, .pt.")]
Start = Annotated[
    Path | None, typer.Option("--model", help="Model to start from; the general one when missing.")
]
Config = Annotated[Path, typer.Option(help="Settings as in the published code, .yaml.")]
DataDir = Annotated[Path, typer.Option(help="Holds img/mr, img/us and img/synthetic_us.")]


def prepare(
    reading: Reading,
    machine: Machine,
    mri: Contrasts,
    output: Output,
    synthetic_us: Annotated[
        Path | None,
        typer.Option(help="Folder of ready-made synthetic ultrasound in the MRI's world."),
    ] = None,
    minutes: Minutes = 10.0,
    model: Start = None,
    seed: Seed = 0,
) -> int:
    """Train a patient's own model before surgery. An interrupted run goes on when repeated."""
    from ..runtime.progress import display
    from ..training.patient.prepare import prepare_file

    options = reading.options()
    place = machine.pick()
    with display() as shown:
        made = prepare_file(
            mri,
            output,
            synthetic_us=synthetic_us,
            options=options,
            start=model,
            minutes=minutes,
            device=place,
            seed=seed,
            report=shown.training,
            progress=shown.stage,
        )
    return _finish(made, output)


def pretrain(
    machine: Machine,
    data: Annotated[
        Path, typer.Option(help="Settings, and the name and images of each patient, .yaml.")
    ],
    output: Output,
    kind: Annotated[
        Literal["crosskey", "uae"],
        typer.Option(help="crosskey matches ultrasound to MRI, uae any image to another."),
    ] = "crosskey",
    model: Annotated[
        Path | None, typer.Option(help="General model to go on from; untrained when missing.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time for training, if not as --data says.", min=0.01),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, likewise.", min=1)] = None,
    seed: Seed = 0,
) -> int:
    """Train a general model on many patients; on several GPUs through torchrun."""
    from ..formats import outputs
    from ..formats.checkpoint import checkpoint_beside
    from ..models.patient import Model
    from ..models.universal import UniversalModel
    from ..runtime.progress import display
    from ..training.patient.pretrain import pretrain as run
    from ..training.universal.pretrain import pretrain_universal

    outputs.check_file(output, (".pt",))
    checkpoint = checkpoint_beside(output)
    place = machine.pick()
    with display() as shown:
        shown.stage("reading")
        if kind == "uae":
            made = pretrain_universal(
                data,
                output,
                start=None if model is None else UniversalModel.load(model),
                minutes=minutes,
                steps=steps,
                device=place,
                seed=seed,
                checkpoint=checkpoint,
                report=shown.training,
                after_round=_tell,
            )
        else:
            made = run(
                data,
                output,
                start=None if model is None else Model.load(model),
                minutes=minutes,
                steps=steps,
                device=place,
                seed=seed,
                checkpoint=checkpoint,
                report=shown.training,
            )
    if _is_first():
        checkpoint.unlink(missing_ok=True)
    return _finish(made, output)


def train(
    machine: Machine,
    config: Config,
    data_dir: DataDir,
    output: Output = Path("crosskey.pt"),
    seed: Seed = 0,
) -> int:
    """Train the published patch descriptor on the published data layout."""
    from ..formats import outputs
    from ..runtime.progress import display
    from ..training.published.train import train as run

    outputs.check_file(output, (".pt",))
    place = machine.pick()
    with display() as shown:
        shown.stage("reading")
        run(config, data_dir, output, device=place, seed=seed, report=shown.training)
    say(f"wrote {output}")
    return DONE


def run_test(
    machine: Machine,
    config: Config,
    data_dir: DataDir,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Model to test; else the one that the settings name.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Report to write, .json.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Test a patch descriptor on the published data layout: precision and matching score."""
    from ..formats import outputs
    from ..formats.atomic import write_json
    from ..runtime.progress import display
    from ..training.published.evaluation import evaluate as run

    outputs.check_file(output, (".json",))
    place = machine.pick()
    with display() as shown:
        shown.stage("matching")
        found = run(config, data_dir, checkpoint, device=place, seed=seed, progress=shown.stage)
    if output is not None:
        write_json(found, output)
    if as_json:
        say_json(found)
    else:
        for name, value in found.items():
            if isinstance(value, dict) and "mean" in value:
                say(f"{name:>20} {value['mean']:.3f}")
            elif isinstance(value, (int, float, str)):
                say(f"{name:>20} {value}")
    return DONE


def _tell(done: Round) -> None:
    """One line for each round of cross-modality learning."""
    if _is_first():
        kept = sum(pair.kept for pair in done.pairs)
        say(
            f"round {done.number}: {kept} of {len(done.pairs)} images registered, "
            f"held-out error {done.held_out_mm:.2f} mm, {done.near:.0%} within 5 mm"
        )


def _finish(made: Model | UniversalModel, output: Path) -> int:
    """Tell what was made; only the first of several processes does."""
    if _is_first():
        for name, value in made.history.items():
            say(f"{name:>20} {value}")
        say(f"wrote {output}")
    return DONE


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0  # set by torchrun
