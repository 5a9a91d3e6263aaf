"""The names of the NVIDIA cards of this computer, asked without PyTorch and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt

COMMAND = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


class Cards:
    """
    Args:
        tell: called with the names, in the order of "cuda", "cuda:1" ...; none without a card.
        command: prints one name a line.
    """

    def __init__(self, tell: Callable[[list[str]], None], command: Sequence[str] = COMMAND) -> None:
        self._tell, self._command = tell, command
        self._process: Any = None

    def ask(self) -> None:
        """Once; cards do not come and go."""
        if self._process is not None:
            return
        self._process = qt.QProcess()
        self._process.finished.connect(lambda *_: self._answered())
        self._process.errorOccurred.connect(lambda *_: self._tell([]))
        self._process.start(self._command[0], list(self._command[1:]))

    def stop(self) -> None:
        if self._process is not None:
            self._tell = lambda names: None
            self._process.kill()
            self._process.waitForFinished(1000)

    def _answered(self) -> None:
        text = self._process.readAllStandardOutput().data().decode("utf-8", "replace")
        failed = self._process.exitCode() != 0
        self._tell([] if failed else [line.strip() for line in text.splitlines() if line.strip()])
