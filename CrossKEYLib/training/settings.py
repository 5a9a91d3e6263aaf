"""Reading training settings and lists from YAML: nothing misspelt passes, nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from ..errors import InputError

T = TypeVar("T")


def read_yaml(path: str | PathLike[str]) -> Any:
    """Content of a YAML file, in plain types.

    Raises:
        InputError: missing, unreadable, no text or no YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; give a YAML file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not valid YAML: {reason}") from error


def section(
    cls: type[T], values: Any, where: str, without_meaning: Collection[str] = frozenset()
) -> T:
    """A settings dataclass from a YAML mapping; keys left out keep their defaults.

    Args:
        cls: dataclass whose fields are ``int``, ``float``, ``bool``, ``str``, or one of these or
            None.
        values: what YAML gave.
        where: names the place in messages.
        without_meaning: keys that may stand there and are not used.

    Raises:
        InputError: not a mapping, an unknown key, or a value of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected settings as 'key: value' lines, got {values!r}")
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    given = {}
    for key, value in values.items():
        if key in known:
            given[key] = _converted(value, hints[key], f"{where}.{key}")
        elif key not in without_meaning:
            names = sorted({*known, *without_meaning})
            raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(names)}")
    return cls(**given)


def check_sections(path: Path, content: Mapping[str, Any], known: Collection[str]) -> None:
    """
    Raises:
        InputError: the YAML at ``path`` has a section that is not ``known``.
    """
    for key in content:
        if key not in known:
            raise InputError(f"{path}: unknown section {key!r}; known: {', '.join(known)}")


def file_beside(path: Path, value: Any, where: str) -> Path:
    """A file that the YAML at ``path`` names, relative to it.

    Raises:
        InputError: not a path, or there is nothing.
    """
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a path, got {value!r}")
    found = path.parent / value
    if not found.exists():
        raise InputError(f"{where}: there is no {found}; paths are relative to the list")
    return found


def _converted(value: Any, hint: Any, where: str) -> Any:
    """The value as the type that the field has."""
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    if bool in kinds and isinstance(value, bool):
        return value
    if str in kinds and isinstance(value, str):
        return value
    if float in kinds or int in kinds:
        number = _number(value)
        if float in kinds and number is not None:
            return number
        if int in kinds and number is not None and number.is_integer():
            return int(number)
    names = {bool: "true or false", str: "text", float: "a number", int: "a whole number"}
    expected = " or ".join(names.get(kind, "nothing") for kind in kinds)
    raise InputError(f"{where}: expected {expected}, got {value!r}")


def _number(value: Any) -> float | None:
    """YAML 1.1 takes 1e-3 and inf for text; both are meant as numbers. None where none is."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
