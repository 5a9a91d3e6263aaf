"""Options and small steps that several commands share. Nothing heavy is imported at file scope."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..volume import Volume

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
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")]

IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def machine(device: str, threads: int | None = None) -> torch.device:
    """The torch device to compute on; also limits the threads.

    Raises:
        ModelError: the device is not there.
    """
    import torch

    from ..model import pick_device

    if threads is not None:
        torch.set_num_threads(threads)
    return pick_device(device)


def read_folder(folder: Path) -> list[Volume]:
    """All volumes of a folder, by name.

    Raises:
        InputError: no folder, none in it, or one is unusable.
    """
    from ..volume import Volume

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the path")
    found = sorted(p for p in folder.iterdir() if p.name.lower().endswith(IMAGES))
    if not found:
        raise InputError(f"{folder}: holds no volumes; expected files ending in .nii.gz")
    return [Volume.read(path) for path in found]


def say(text: str) -> None:
    typer.echo(text)


def say_json(report: dict[str, Any]) -> None:
    say(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
