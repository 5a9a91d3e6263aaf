"""Options and small steps that several commands share. Nothing heavy is imported at file scope."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from ..formats.options import ReadOptions

DONE, REFUSED = 0, 3  # exit status; bad input is raised as an error

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel="Machine")]
Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]
Threads = Annotated[
    int | None, typer.Option(help="Processor threads to use.", min=1, rich_help_panel="Machine")
]
Contrasts = Annotated[
    list[Path],
    typer.Option("--mri", help="MRI: file or DICOM folder; repeat for more contrasts, best first."),
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        help="DICOM series of a folder that holds several: UID, number or name; repeat for both.",
        rich_help_panel="Input",
    ),
]
Frame = Annotated[
    int | None,
    typer.Option(help="Volume of a sequence, from 1.", min=1, rich_help_panel="Input"),
]
Orientation = Annotated[
    str | None,
    typer.Option(help="sform or qform, where NIfTI states both.", rich_help_panel="Input"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")]


def machine(device: str, threads: int | None = None) -> torch.device:
    """The torch device to compute on; also limits the threads.

    Raises:
        ModelError: the device is not there.
    """
    import torch

    from ..runtime.device import pick_device

    if threads is not None:
        torch.set_num_threads(threads)
    return pick_device(device)


def choices(series: list[str] | None, frame: int | None, orientation: str | None) -> ReadOptions:
    """What to read of inputs that offer a choice.

    Raises:
        InputError: an orientation of another name.
    """
    from ..formats.options import ReadOptions

    return ReadOptions(tuple(series or ()), frame, orientation)


def say(text: str) -> None:
    typer.echo(text)


def say_json(report: Mapping[str, Any]) -> None:
    say(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
