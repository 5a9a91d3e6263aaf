"""Where the files that are no code lie: trained models and the sample case."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from ..errors import InputError

SUMS = "SHA256SUMS"  # beside bundled files, as sha256sum writes it


def resource(name: str) -> Path:
    """Path of a bundled file or folder, such as ``"Models/base.pt"``.

    An installed package holds ``Resources`` within itself; a checkout, and the module folder of a
    Slicer extension, have it beside the package.

    Raises:
        InputError: the installation lacks it, or it is not the file that its folder's `SUMS` lists.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "Resources", package.parent / "Resources"):
        path = folder / name
        if path.exists():
            if path.is_file() and not _is_as_listed(path, path.stat().st_mtime_ns):
                raise InputError(f"the bundled file {name!r} is damaged; install crosskey again")
            return path
    raise InputError(f"the bundled file {name!r} is missing; install crosskey again")


@lru_cache
def _is_as_listed(path: Path, changed: int) -> bool:
    """Whether the file has the digest that is listed for it, if one is; read once per state."""
    sums = path.parent / SUMS
    lines = sums.read_text(encoding="ascii").splitlines() if sums.exists() else []
    listed = {name: digest for digest, name in (line.split() for line in lines)}
    wanted = listed.get(path.name)
    return wanted is None or hashlib.sha256(path.read_bytes()).hexdigest() == wanted
