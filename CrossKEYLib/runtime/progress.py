"""What a person at a terminal sees while a command works; nothing where stderr is piped."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


def silent(told: object) -> None:
    """Takes a report for which nobody asked."""


@dataclass(frozen=True)
class Progress:
    """One report: ``precision`` is the share of held-out matches within 5 mm, None in between."""

    step: int
    steps: int
    loss: float
    precision: float | None
    seconds: float


class Display:
    """One line: the stage, and for training a bar with loss and held-out precision."""

    def __init__(self, bar: Bar | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("starting", total=None)
        self._precision = ""

    def stage(self, name: str) -> None:
        """A stage of unknown length begins."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name, total=None, completed=0)

    def training(self, progress: Progress) -> None:
        """One training step is done."""
        if self._bar is None or self._task is None:
            return
        if progress.precision is not None:
            self._precision = f", held-out precision {progress.precision:.0%}"
        self._bar.update(
            self._task,
            description=f"training, loss {progress.loss:.3f}{self._precision}",
            total=progress.steps or None,
            completed=progress.step,
        )


@contextmanager
def display() -> Generator[Display, None, None]:
    """A display for the time of the block, on stderr."""
    if not sys.stderr.isatty():
        yield Display(None)
        return
    from rich.console import Console  # costs a piped run nothing
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Display(bar)
