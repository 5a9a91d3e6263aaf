"""Checks of settings: the type, the choice and the range of every field, from its annotation.

A settings class is a frozen dataclass derived from `Settings`. Its annotations say what a field may
hold: `Positive`, `Share` and the other names below for numbers, ``Literal`` for choices, ``X |
None``, tuples, and other settings classes. The same check serves values given in Python and values
read from a file (`from_mapping`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as type_hints

from ..errors import InputError


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``.

    Attributes:
        low, high: the ends; both belong to the range.
        open_low: whether ``low`` itself does not.
        infinite: whether infinity does, where there is no upper end.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    infinite: bool = False

    def __contains__(self, value: float) -> bool:
        if math.isinf(value):
            return self.infinite and value > 0
        return self.low <= value <= self.high and not (self.open_low and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "a finite number"
        if not math.isinf(self.high):
            return f"a number {'above' if self.open_low else 'from'} {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" if self.open_low else f"at least {self.low:g}"


FINITE = Range()
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, open_low=True)]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Angle = Annotated[float, Range(0, 180)]  # degrees

_NAMES = {
    bool: "true or false",
    str: "text",
    float: "a number",
    int: "a whole number",
    NoneType: "nothing",
}


class Settings:
    """Base of all settings; its dataclasses refuse values that their annotations do not allow."""

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: a value of the wrong type, out of its range, or no such choice.
        """
        name = type(self).__name__
        for key, hint in _hints(type(self)).items():
            value = converted(getattr(self, key), hint, f"{name}.{key}")
            object.__setattr__(self, key, value)  # the dataclass is frozen


S = TypeVar("S", bound=Settings)


def from_mapping(
    cls: type[S], values: Any, where: str, without_meaning: Collection[str] = frozenset()
) -> S:
    """Settings from a mapping, as a YAML file or a checkpoint gives it.

    Args:
        cls: the class of settings; keys left out keep its defaults.
        values: the mapping; nested settings are mappings too.
        where: names the file and the section in messages.
        without_meaning: keys that may stand there although nothing uses them.

    Raises:
        InputError: not a mapping, an unknown key, or a value that the field does not allow.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected settings as 'key: value' lines, got {values!r}")
    hints, given = _hints(cls), {}
    for key, value in cast("Mapping[Any, Any]", values).items():
        if key in hints:
            given[key] = converted(value, hints[key], f"{where}.{key}")
        elif key not in without_meaning:
            known = sorted({*hints, *without_meaning})
            raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(known)}")
    return _checked_together(cls, given, where)


def _checked_together(cls: type[S], given: dict[str, Any], where: str) -> S:
    """The settings; what a class itself says of values that exclude each other names the file."""
    try:
        return cls(**given)
    except InputError as error:
        raise InputError(str(error).replace(cls.__name__, where, 1)) from error


def converted(value: Any, hint: Any, where: str) -> Any:
    """The value as what the annotation asks for.

    Raises:
        InputError: it is of another type, out of range, or no such choice.
    """
    hint, allowed = _split(hint)
    if get_origin(hint) in (Union, UnionType):
        kinds = get_args(hint)
        if value is None and NoneType in kinds:
            return None
        (kind,) = (kind for kind in kinds if kind is not NoneType)
        return converted(value, kind, where)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices or isinstance(value, bool):
            expected = " or ".join(str(choice) for choice in choices)
            raise InputError(f"{where}: expected {expected}, got {value!r}")
        return value
    if get_origin(hint) is tuple:
        return _tuple(value, get_args(hint), where)
    if issubclass(hint, Settings):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)
    return _plain(value, hint, allowed, where)


def _plain(value: Any, kind: type, allowed: Range, where: str) -> Any:
    """A truth value, a text or a number."""
    if kind in (bool, str):
        if isinstance(value, kind):
            return value
        raise InputError(f"{where}: expected {_NAMES[kind]}, got {value!r}")
    number = _number(value)
    if number is None or (kind is int and not number.is_integer()):
        raise InputError(f"{where}: expected {_NAMES[kind]}, got {value!r}")
    if number not in allowed:
        raise InputError(f"{where}: expected {allowed}, got {value}")
    return int(number) if kind is int else number


def _tuple(value: Any, kinds: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """``tuple[X, ...]`` of at least one entry, or one of fixed length."""
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{where}: expected a list, got {value!r}")
    entries = cast("list[Any]", value)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(entries)
    if len(kinds) != len(entries):
        raise InputError(f"{where}: expected {len(kinds)} entries, got {value!r}")
    return tuple(converted(v, kind, where) for v, kind in zip(entries, kinds, strict=True))


def _split(hint: Any) -> tuple[Any, Range]:
    """The type, and the range that its annotation allows."""
    if get_origin(hint) is not Annotated:
        return hint, FINITE
    kind, *notes = get_args(hint)
    return kind, next((note for note in notes if isinstance(note, Range)), FINITE)


@cache
def _hints(cls: type[Settings]) -> dict[str, Any]:
    """Annotation of each field."""
    hints = type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cast("Any", cls))}


def _number(value: Any) -> float | None:
    """YAML 1.1 takes 1e-3 and inf for text; both are meant as numbers. None where none is."""
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
