"""``crosskey register`` and ``crosskey demo``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..config import RegisterConfig, Transform
from ..errors import InputError
from .common import (
    DONE,
    REFUSED,
    Json,
    Seed,
    say,
    say_json,
)
from .groups import Machine, Reading

if TYPE_CHECKING:
    from ..demo import Demo
    from ..geometry.transform import Matrix
    from ..geometry.volume import Volume
    from ..registration.by_embedding import EmbeddingRegistration
    from ..registration.result import Registration


VERDICTS = {
    "accepted": "accepted",
    "doubtful": "DOUBTFUL, look at it before use",
    "refused": "REFUSED, do not use",
}


def register(
    reading: Reading,
    machine: Machine,
    mri: Annotated[
        Path, typer.Option("--mri", "--fixed", help="MRI, or fixed image: file or DICOM folder.")
    ],
    ius: Annotated[
        Path,
        typer.Option(
            "--ius",
            "--moving",
            help="Reconstructed 3D ultrasound, or moving image: file or DICOM folder.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Transform to write, .tfm; only when accepted.")],
    model: Annotated[
        Path | None, typer.Option(help="Model of this patient; the general one when missing.")
    ] = None,
    method: Annotated[
        Literal["crosskey", "embedding"],
        typer.Option(
            help="crosskey: ultrasound to MRI. embedding: any two images of one head, MRI of two "
            "contrasts, or MRI and CT, of any field of view, oriented alike to within 30 degrees; "
            "with a universal embedding as --model."
        ),
    ] = "crosskey",
    initial: Annotated[
        Path | None, typer.Option(help="Transform to start from, .tfm; none is needed.")
    ] = None,
    mri_mask: Annotated[
        Path | None, typer.Option(help="Label volume: the brain; estimated when missing.")
    ] = None,
    ius_mask: Annotated[
        Path | None, typer.Option(help="Label volume: where the ultrasound shows anything.")
    ] = None,
    transform: Annotated[Transform, typer.Option(help="What to estimate.")] = "rigid",
    report: Annotated[
        Path | None, typer.Option(help="Report to write, .json; also when refused.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for pictures; made when missing.")
    ] = None,
    allow_doubtful: Annotated[
        bool,
        typer.Option(
            "--allow-doubtful",
            help="Write the transform of a doubtful result too; look at it before use.",
        ),
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Register an ultrasound to its MRI, or, with --method embedding, any two images of one head.
    Exit status 3 when the result is doubtful or refused."""
    from ..formats import outputs
    from ..formats.transforms import read_transform
    from ..formats.volumes import read_mask, read_volume
    from ..models.patient import Model
    from ..registration.pipeline import register as run
    from ..runtime.progress import display
    from ..trust.confidence import DOUBTFUL

    if method == "embedding":
        _check_unused(
            {"initial": initial, "mri-mask": mri_mask, "ius-mask": ius_mask, "figures": figures}
        )
    outputs.check_file(output, (".tfm", ".txt"))
    outputs.check_file(report, (".json",))
    outputs.check_folder(figures)
    options = reading.options()
    place = machine.pick()
    start = None if initial is None else read_transform(initial)
    config = RegisterConfig().estimating(transform)
    with display() as shown:
        shown.stage("reading")
        fixed, moving = (read_volume(path, options).to(place) for path in (mri, ius))
        brain, view = (
            None if path is None else read_mask(path).to(place) for path in (mri_mask, ius_mask)
        )
        result: Registration | EmbeddingRegistration
        if method == "embedding":
            from ..models.universal import UniversalModel
            from ..registration.by_embedding import register_by_embedding

            known = UniversalModel.load(model).to(place)
            result = register_by_embedding(
                fixed, moving, known, transform=transform, seed=seed, progress=shown.stage
            )
        else:
            result = run(
                fixed,
                moving,
                Model.load(model).to(place),
                initial=start,
                fixed_mask=brain,
                moving_mask=view,
                config=config,
                seed=seed,
                progress=shown.stage,
            )
        shown.stage("writing")
        usable = bool(result) or (allow_doubtful and result.report()["verdict"] == DOUBTFUL)
        written = _write(result, usable, output, report, figures, (fixed, moving), start)
    if as_json:
        say_json(result.report())
    else:
        _tell(result, written)
    return DONE if result else REFUSED


def demo(
    machine: Machine,
    output: Annotated[Path, typer.Option(help="Folder for the results; made when missing.")] = Path(
        "crosskey-demo"
    ),
    seed: Seed = 0,
) -> int:
    """Register the bundled sample case and leave transform, report, figures and scene."""
    from ..demo import run
    from ..runtime.progress import display

    place = machine.pick()
    with display() as shown:
        done = run(output, device=place, seed=seed, progress=shown.stage)
    _tell_demo(done, output)
    return DONE if done.result else REFUSED


def _check_unused(options: dict[str, object]) -> None:
    """
    Raises:
        InputError: an option is given that only the method crosskey knows.
    """
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name} does not apply to --method embedding; leave it out")


def _write(
    result: Registration | EmbeddingRegistration,
    usable: bool,
    output: Path,
    report: Path | None,
    folder: Path | None,
    pair: tuple[Volume, Volume],
    before: Matrix | None,
) -> list[Path]:
    """Everything that was asked for, together, the transform only if ``usable``; returns the
    files."""
    from ..formats.atomic import write_json
    from ..formats.outputs import together
    from ..formats.transforms import write_transform
    from ..registration.result import Registration

    written = []
    with together() as stage:
        if usable and result.matrix is not None:
            write_transform(result.matrix, stage(output))
            written.append(output)
        if report is not None:
            write_json(result.report(), stage(report))
            written.append(report)
        if folder is not None and isinstance(result, Registration):
            from .. import figures  # matplotlib takes its time

            for name, figure in figures.of_registration(result, *pair, before).items():
                figures.save(figure, stage(folder / name))
                written.append(folder / name)
    if not usable:
        # An older transform of that name would pass for the result of this run.
        try:
            output.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{output}: cannot be removed ({error.strerror}); remove it"
            ) from error
    return written


def _tell(result: Registration | EmbeddingRegistration, written: list[Path]) -> None:
    report: Mapping[str, Any] = result.report()
    line = VERDICTS[report["verdict"]]
    if "confidence" in report:
        line += f": confidence {report['confidence']:.2f}"
    elif report["inverse_consistency_mm"] is not None:
        line += f": both directions agree to {report['inverse_consistency_mm']:.1f} mm"
    say(line)
    for reason in report["reasons"]:
        say(f"  {reason}")
    if report.get("predicted_tre_mm") is not None:
        say(f"target registration error: most likely below {report['predicted_tre_mm']:.1f} mm")
    say(
        f"{report['n_inliers']} of {report['n_matches']} matches agree; "
        f"{report['seconds']['total']:.1f} s on {report['device']}"
    )
    for path in written:
        say(f"wrote {path}")


def _tell_demo(done: Demo, output: Path) -> None:
    verdict = VERDICTS[done.result.trust.verdict]
    say(f"target registration error before  {float(done.before_mm.mean()):5.1f} mm")
    if done.after_mm is not None:
        say(f"target registration error after   {float(done.after_mm.mean()):5.1f} mm")
    say(f"confidence                        {done.result.trust.confidence:5.2f}, {verdict}")
    say(f"seconds                           {done.seconds:5.1f}")
    for reason in done.result.trust.reasons:
        say(f"  {reason}")
    say(f"look at {output / 'overlay.png'} and {output / 'matches.png'}")
    if done.result:
        say(f"open {done.files[-1]} in 3D Slicer (drag it into the window)")
