"""``crosskey benchmark``: this method and its peers on the same cases from the same starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .common import DONE, say
from .groups import Machine

if TYPE_CHECKING:
    from ..evaluation.cases import Case
    from ..evaluation.outcome import Outcome

OUTCOMES, TABLES = "outcomes.json", "tables.md"
CAPTURE, CALIBRATION = "capture.png", "calibration.png"

Images = Annotated[
    list[Path] | None, typer.Option("--mri", help="MRI: file or DICOM folder; repeat for more.")
]


def benchmark(
    machine: Machine,
    output: Annotated[Path, typer.Option(help="Folder for outcomes, tables and plots.")],
    case: Annotated[
        Path | None, typer.Option(help="Folder of one patient: MRI, iUS and landmarks.")
    ] = None,
    mri: Images = None,
    ius: Annotated[Path | None, typer.Option(help="Ultrasound of this patient.")] = None,
    landmarks: Annotated[
        list[Path] | None, typer.Option(help="Landmark pairs of both, as evaluate takes them.")
    ] = None,
    simulate: Annotated[
        int, typer.Option(help="Simulated ultrasounds per MRI, their pose exactly known.", min=0)
    ] = 0,
    deformed: Annotated[
        int,
        typer.Option(help="Likewise, the ultrasound deformed against the MRI.", min=0),
    ] = 0,
    absent: Annotated[
        int,
        typer.Option(
            help="Likewise, with that side of the head emptied: each acceptance is a false one.",
            min=0,
        ),
    ] = 0,
    foreign: Annotated[
        list[Path] | None,
        typer.Option(help="Ultrasound of other patients; repeat. Each acceptance is a false one."),
    ] = None,
    mirrored: Annotated[
        list[Path] | None,
        typer.Option(
            help="Ultrasound, of this patient too, against each MRI mirrored left to right; "
            "repeat. Each acceptance is a false one."
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Of crosskey, mi, elastix, ants, lc2, mind, convexadam; with commas."),
    ] = "crosskey,mi,lc2,mind",
    levels: Annotated[
        str | None,
        typer.Option(help='Misplacements, such as "0/0,10/10,arbitrary"; all when missing.'),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Misplacements per level.", min=1)] = 10,
    model: Annotated[
        Path | None, typer.Option(help="Model for crosskey; the general one when missing.")
    ] = None,
) -> int:
    """Register many misplaced starts, peers included; an interrupted run goes on when repeated."""
    from ..evaluation.benchmark import OURS, plan, run
    from ..formats import outputs
    from ..models.patient import Model
    from ..runtime.progress import display

    chosen, sizes = _methods(methods), _levels(levels)
    outputs.check_folder(output)
    place = machine.pick()
    strangers = (foreign or [], mirrored or [])
    counts = (simulate, deformed, absent)
    cases = _cases(case, mri or [], ius, landmarks or [], counts, strangers)
    ours = Model.load(model).to(place) if OURS in chosen else None
    trials = plan(cases, chosen, sizes, seeds)
    if not trials:
        raise InputError(
            "pairs that do not belong together are for crosskey alone; add it to --methods"
        )
    output.mkdir(parents=True, exist_ok=True)
    with display() as shown:
        shown.stage(f"{len(trials)} registrations")
        outcomes = run(trials, output / OUTCOMES, ours, say)
    _write(output, outcomes)
    return DONE


def _methods(text: str) -> list[str]:
    """Raises InputError: an unknown method, or one whose package is missing."""
    from ..evaluation.benchmark import METHODS, OURS
    from ..evaluation.peers.registry import PEERS

    chosen = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in METHODS:
            raise InputError(f"--methods: unknown {name!r}; choose from {', '.join(METHODS)}")
        if name != OURS:
            PEERS[name].check()
    return chosen


def _levels(text: str | None) -> list[str]:
    """Raises InputError: an unknown level."""
    from ..evaluation.misplacements import ARBITRARY, LEVELS

    known = {name.replace(" ", ""): name for name in (*LEVELS, ARBITRARY)}
    if text is None:
        return list(known.values())
    chosen = [name.replace(" ", "") for name in text.split(",")]
    for name in chosen:
        if name not in known:
            raise InputError(f"--levels: unknown {name!r}; choose from {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(chosen)]


def _cases(
    folder: Path | None,
    mri: Sequence[Path],
    ius: Path | None,
    landmarks: Sequence[Path],
    counts: tuple[int, int, int],
    strangers: tuple[Sequence[Path], Sequence[Path]],
) -> list[Case]:
    """Raises InputError: options that do not go together, or give no case at all."""
    from ..evaluation.cases import (
        absent_cases,
        deformed_cases,
        find_case,
        foreign_cases,
        mirrored_cases,
        real_cases,
        simulated_cases,
    )

    if folder is not None:
        if mri or ius is not None or landmarks:
            raise InputError("give either --case or --mri, --ius and --landmarks")
        mri, ius, landmarks = find_case(folder)
    if (ius is None) != (not landmarks):
        raise InputError("--ius and --landmarks belong together; give both")
    if not mri:
        raise InputError("give --case FOLDER, or --mri")
    foreign, mirrored = strangers
    for path in (*mri, *foreign, *mirrored):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
    cases = [] if ius is None else real_cases(mri, ius, landmarks)
    cases += simulated_cases(mri, counts[0]) + deformed_cases(mri, counts[1])
    cases += absent_cases(mri, counts[2])
    cases += foreign_cases(mri, foreign) + mirrored_cases(mri, mirrored)
    if not cases:
        raise InputError(
            "nothing to register: give --ius and --landmarks, --simulate, --deformed, --absent, "
            "--foreign or --mirrored"
        )
    return cases


def _write(output: Path, outcomes: list[Outcome]) -> None:
    """Tables and plots from the outcomes, together."""
    from .. import figures
    from ..evaluation import benchmark_figure
    from ..evaluation.benchmark_tables import tables
    from ..formats import outputs

    text = tables(outcomes)
    written = [output / TABLES]
    with outputs.together() as stage:
        stage(output / TABLES).write_text(text, encoding="utf-8")
        if any(o["kind"] != "foreign" for o in outcomes):
            figures.save(benchmark_figure.capture(outcomes), stage(output / CAPTURE))
            written.append(output / CAPTURE)
        if any("confidence" in o for o in outcomes):
            figures.save(benchmark_figure.calibration(outcomes), stage(output / CALIBRATION))
            written.append(output / CALIBRATION)
    say(text)
    for path in (output / OUTCOMES, *written):
        say(f"wrote {path}")
