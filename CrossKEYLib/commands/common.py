"""Options and small steps that several commands share. Nothing heavy is imported at file scope."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

DONE, REFUSED = 0, 3  # exit status; bad input is raised as an error

Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]
Contrasts = Annotated[
    list[Path],
    typer.Option("--mri", help="MRI: file or DICOM folder; repeat for more contrasts, best first."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")]


def say(text: str) -> None:
    typer.echo(text)


def say_json(report: Mapping[str, Any]) -> None:
    say(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
