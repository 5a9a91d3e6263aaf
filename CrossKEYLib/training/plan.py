"""Plans of trainings on many patients: a YAML with settings and a list of patients.

Paths in a plan are relative to its file. Both kinds of general model are trained by such plans.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from ..config import LoopConfig, Settings, from_mapping, read_yaml
from ..errors import InputError

T = TypeVar("T")
L = TypeVar("L", bound=LoopConfig)
S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Entry:
    """One patient of the list.

    Attributes:
        name: no other patient of the list has it.
        where: file and patient, for messages.
        folder: that paths are relative to.
        values: what the plan says, by key.
    """

    name: str
    where: str
    folder: Path
    values: dict[str, Any]

    def files(self, key: str, *, needed: bool = False) -> tuple[Path, ...]:
        """Files of a list; none where the key is missing.

        Raises:
            InputError: no list, empty although needed, or a file that is not there.
        """
        listed = self.values.get(key)
        if listed is None and not needed:
            return ()
        if not isinstance(listed, list) or not (listed or not needed):
            raise InputError(f"{self.where}: {key}: expected a list of images, got {listed!r}")
        return tuple(self._found(value, key) for value in cast("list[Any]", listed))

    def file(self, key: str) -> Path | None:
        """One file; None where the key is missing.

        Raises:
            InputError: not a path, or there is nothing.
        """
        value = self.values.get(key)
        return None if value is None else self._found(value, key)

    def named_files(self, key: str, names: Collection[str]) -> dict[str, Path] | None:
        """One file for each of the names, and no other; None where the key is missing.

        Raises:
            InputError: other names, not a path, or there is nothing.
        """
        entry = self.values.get(key)
        if entry is None:
            return None
        if not isinstance(entry, dict) or set(cast("dict[Any, Any]", entry)) != set(names):
            expected = " and ".join(names)
            raise InputError(f"{self.where}: {key}: expected {expected}, got {entry!r}")
        return {name: self._found(entry[name], f"{key}.{name}") for name in names}

    def flag(self, key: str) -> bool:
        """False where the key is missing.

        Raises:
            InputError: neither true nor false.
        """
        value = self.values.get(key)
        if value not in (None, True, False):
            raise InputError(f"{self.where}: {key}: expected true or false, got {value!r}")
        return bool(value)

    def _found(self, value: Any, key: str) -> Path:
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {key}: expected a path, got {value!r}")
        found = self.folder / value
        if not found.exists():
            raise InputError(
                f"{self.where}: {key}: there is no {found}; paths are relative to the list"
            )
        return found


@dataclass(frozen=True)
class PlanFile:
    """A plan as the YAML gives it, its sections checked."""

    path: Path
    sections: dict[str, Any]

    @classmethod
    def read(cls, path: Path, known: Collection[str]) -> PlanFile:
        """
        Raises:
            InputError: unreadable, no patients, or a section that is not ``known``.
        """
        content = read_yaml(path)
        if not isinstance(content, dict) or not content.get("patients"):
            raise InputError(
                f"{path}: expected patients, a list, each with a name and images; "
                f"known sections: {', '.join(known)}"
            )
        sections = cast("dict[str, Any]", content)
        for key in sections:
            if key not in known:
                raise InputError(f"{path}: unknown section {key!r}; known: {', '.join(known)}")
        return cls(path, sections)

    def settings(self, section: str, cls: type[S]) -> S:
        """Settings of a section; defaults where it is missing.

        Raises:
            InputError: an unknown key, or a value that the field does not allow.
        """
        values = self.sections.get(section)
        return from_mapping(cls, {} if values is None else values, f"{self.path}: {section}")

    def patients(
        self, section: str, keys: Collection[str], of: Callable[[Entry], T]
    ) -> tuple[T, ...]:
        """The patients that a section lists, each made of its entry.

        Args:
            section: its name; none where it is missing.
            keys: what an entry may hold, ``name`` among them.
            of: makes a patient.

        Raises:
            InputError: no list, an unknown key, no name, or a name that two patients have.
        """
        listed = self.sections.get(section) or []
        if not isinstance(listed, list):
            raise InputError(
                f"{self.path}: {section}: expected a list, each with a name and images"
            )
        values = cast("list[Any]", listed)
        entries = [self._entry(section, n, v, keys) for n, v in enumerate(values, 1)]
        _check_names(self.path, entries)
        return tuple(of(entry) for entry in entries)

    def _entry(self, section: str, number: int, values: Any, keys: Collection[str]) -> Entry:
        where = f"{self.path}: {section} {number}"
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected name and images, got {values!r}")
        given = cast("dict[str, Any]", values)
        for key in given:
            if key not in keys:
                raise InputError(f"{where}: unknown key {key!r}; known keys: {', '.join(keys)}")
        name = given.get("name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: expected a name, got {name!r}")
        return Entry(name, f"{where} ({name})", self.path.parent, given)


def of_length(config: L, minutes: float | None, steps: int | None) -> L:
    """The settings with another length of the run, where one is given."""
    if minutes is None and steps is None:
        return config
    return replace(config, minutes=minutes, steps=steps)


def _check_names(path: Path, entries: Sequence[Entry]) -> None:
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two patients are called {name!r}; give each its own name")
