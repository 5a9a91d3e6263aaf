"""Paths as ITK takes them: ITK ends the whole process over a name that is not UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError


def itk_name(path: Path) -> str:
    """The path as UTF-8 text, whatever the locale.

    Raises:
        InputError: a byte of it is not UTF-8.
    """
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            "its name or that of a folder above it is not UTF-8 text; rename it"
        ) from None


def printable(path: Path) -> str:
    """The path for a message; bytes that are not UTF-8 are shown as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
