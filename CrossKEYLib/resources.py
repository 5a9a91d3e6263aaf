"""Where the files that are no code lie: trained models and the sample case."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError


def resource(name: str) -> Path:
    """Path of a bundled file or folder, such as ``"Models/base.pt"``.

    An installed package holds ``Resources`` within itself; a checkout, and the module folder of a
    Slicer extension, have it beside the package.

    Raises:
        InputError: the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "Resources", package.parent / "Resources"):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"the bundled file {name!r} is missing; install crosskey again")
