"""Output files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError

REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your disk quota is used up; free some space and run again",
    errno.EFBIG: "the file would exceed the size limit; raise the limit or write elsewhere",
    errno.EACCES: "no permission; choose another folder",
    errno.EPERM: "no permission; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create the folder first",
    errno.ENOTDIR: "a part of the path is a file, not a folder; correct the path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def whole(path: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """Give a temporary path beside ``path`` to write to; rename it to ``path`` at the end.

    The temporary name keeps the extension, by which many writers choose their format. When the
    block raises anything, nothing is left behind and what stood at ``path`` before still does.

    Raises:
        InputError: full disk, no permission, missing folder, or ``path`` is no plain file.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # errors of delayed writing must show before the rename
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _remove(temporary)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before a long computation whether ``path`` can be written; leaves no trace.

    Raises:
        InputError: as `whole`.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _remove(temporary)


def write_json(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write ``obj`` as JSON, whole or not at all.

    Arrays and tensors become nested lists; NaN and infinity, which JSON lacks, become null.

    Raises:
        InputError: as `whole`.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    with whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _beside(path: Path) -> Path:
    """An unused hidden name in the folder of ``path`` with its extension."""
    try:
        if path.exists() and not path.is_file():  # a rename would replace even a device
            raise InputError(f"cannot write {path}: it is not a plain file; choose another name")
    except OSError as error:
        raise unwritable(path, error) from error
    return path.with_name(f".{secrets.token_hex(6)}{''.join(path.suffixes[-2:])}")


def _remove(path: Path) -> None:
    with suppress(OSError):  # then the folder itself is missing: nothing was left in it
        path.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> InputError:
    """What to say about ``error`` met when writing ``path``."""
    reason = REMEDIES.get(error.errno or 0, f"{error.strerror or error}; write elsewhere")
    return InputError(f"cannot write {path}: {reason}")


def _plain(obj: Any) -> Any:
    """``obj`` in the types that JSON has."""
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if hasattr(obj, "tolist"):  # NumPy arrays and scalars, torch tensors
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return str(obj) if isinstance(obj, os.PathLike) else obj
