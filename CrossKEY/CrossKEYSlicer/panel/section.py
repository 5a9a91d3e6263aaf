"""What the sections of the panel have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..logic import CrossKEYLogic
from ..parameters import CrossKEYParameters
from ..problem import Problem
from . import panel_state


class Section:
    """Part of the panel's class that handles the clicks of one section.

    Attributes:
        ui: the panel's widgets, by name.
        logic: does the work.
        ask: whether a person agrees to a question.
    """

    ui: Any
    logic: CrossKEYLogic
    ask: Callable[[str], bool]
    _parameters: CrossKEYParameters | None

    @contextmanager
    def told(self) -> Iterator[None]:
        """What cannot be done is told in the panel."""
        try:
            yield
        except Problem as problem:
            self.tellProblem(str(problem))

    def tell(self, text: str, bad: bool = False) -> None:
        panel_state.say(self.ui, text, bad)

    def tellProblem(self, text: str) -> None:
        self.tell(text, bad=True)

    def _showProgress(self) -> None:
        """Progress and Cancel stand beside Register, whatever the work is."""
        self.ui.registerSection.collapsed = False
