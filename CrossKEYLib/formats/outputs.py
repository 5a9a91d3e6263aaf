"""Several output files of one run that appear together or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .atomic import check_writable, unwritable

Stage = Callable[[Path], Path]


def check_file(path: Path | None, extensions: Sequence[str]) -> None:
    """Find out before a long computation whether a file can be written; None is let through.

    Raises:
        InputError: another extension, or `atomic.whole` would fail.
    """
    if path is None:
        return
    if not path.name.lower().endswith(tuple(extensions)):
        raise InputError(
            f"cannot write {path}: expected a name ending in {' or '.join(extensions)}"
        )
    check_writable(path)


def check_folder(path: Path | None) -> None:
    """The same for a folder, which may have to be made first.

    Raises:
        InputError: a file is in the way, or nothing can be written there.
    """
    if path is None:
        return
    path = path.absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write into {path}: {existing} is a file; choose another folder")
    try:
        check_writable(existing / ".crosskey")
    except InputError as error:
        reason = str(error).split(": ", 1)[-1]
        raise InputError(f"cannot write into {path}: {reason}") from error


@contextmanager
def together() -> Generator[Stage, None, None]:
    """Give a function that tells where to write the file meant for a path.

    The files keep their names, in a hidden folder beside their place, and all move there when the
    block ends well. Otherwise none does, what stood there before stays, and folders that were
    made on the way go.

    Raises:
        InputError: a file or folder cannot be written.
    """
    rooms: dict[Path, Path] = {}
    staged: dict[Path, Path] = {}  # by where they are written
    made: list[Path] = []

    def stage(path: Path) -> Path:
        folder = path.absolute().parent
        try:
            if folder not in rooms:
                made.extend(_make(folder))
                rooms[folder] = Path(tempfile.mkdtemp(prefix=".crosskey-", dir=folder))
        except OSError as error:
            raise unwritable(path, error) from error
        staged[rooms[folder] / path.name] = path
        return rooms[folder] / path.name

    finished = False
    try:
        yield stage
        _move(staged)
        finished = True
    except InputError as error:
        text = str(error)
        for inner, path in staged.items():
            text = text.replace(str(inner), str(path))
        raise InputError(text) from error
    finally:
        for room in rooms.values():
            shutil.rmtree(room, ignore_errors=True)
        if not finished:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were missing, outermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _move(staged: dict[Path, Path]) -> None:
    """Move files to their places; on failure take back the ones that were new there."""
    new: list[Path] = []
    for inner, path in staged.items():
        existed = path.exists()
        try:
            os.replace(inner, path)
        except OSError as error:
            for written in new:
                written.unlink(missing_ok=True)
            raise unwritable(path, error) from error
        if not existed:
            new.append(path)
