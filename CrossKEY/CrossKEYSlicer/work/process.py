"""The warm worker process: started when first needed, kept, ended with the panel.

Whatever happens to the process, the one who asked is told exactly once how it ended. Slicer never
waits for it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

# What the launcher around Slicer's Python says last when that has crashed.
LAUNCHER = re.compile(r"error: \[.*\] exit abnormally", re.IGNORECASE)
TOLD_LINES = 2
KEPT_LINES = 200  # of what the process says besides its answers
LONGEST_ANSWER = 64 * 2**20  # bytes; more without a line's end is no answer
STOP_MS = 3000

Listener = Callable[[dict[str, Any]], None]


def worker_command() -> list[str]:
    """Slicer's own Python with the worker; outside Slicer the running one."""
    return [shutil.which("PythonSlicer") or sys.executable, "-m", "CrossKEYLib.worker"]


def library_folder() -> str:
    """The folder that holds CrossKEYLib, found without importing it."""
    found = importlib.util.find_spec("CrossKEYLib")
    if found is None or found.origin is None:
        return ""
    return str(Path(found.origin).parents[1])


def last_words(log: Iterable[str]) -> str:
    """The last lines of a process that say something, without those of the launcher around it."""
    lines = [line.strip() for line in log]
    lines = [line for line in lines if line and not LAUNCHER.search(line)]
    return " ".join(lines[-TOLD_LINES:])


class WorkerProcess:
    """One process that does one request at a time.

    Args:
        command: program and arguments; the real worker when missing.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self.log: deque[str] = deque(maxlen=KEPT_LINES)
        self._command = command
        self._process: Any = None
        self._listener: Listener | None = None
        self._number = 0
        self._rest = b""

    @property
    def busy(self) -> bool:
        return self._listener is not None

    @property
    def pid(self) -> int:
        """Of the living process, else 0."""
        return 0 if self._process is None else int(self._process.processId())

    def ask(self, request: dict[str, Any], listener: Listener) -> None:
        """Send a request.

        Args:
            request: see `CrossKEYLib.worker`, without the number.
            listener: called with each answer, the last one of kind "result" or "error".
        """
        if self.busy:
            raise RuntimeError("the worker is busy")
        self._number += 1
        self._listener = listener
        if self._process is None:
            self._start()
        if self._process is not None:
            line = json.dumps({"id": self._number, **request}) + "\n"
            self._process.write(line.encode())

    def stop(self) -> None:
        """End the process, if there is one; who waits for an answer hears that none will come."""
        process, self._process = self._process, None
        listener, self._listener = self._listener, None
        if process is not None:
            process.kill()
            process.waitForFinished(STOP_MS)
            process.deleteLater()
        if listener is not None:
            listener(
                {"kind": "error", "message": _("The computation was stopped."), "expected": True}
            )

    def _start(self) -> None:
        process = qt.QProcess()
        environment = qt.QProcessEnvironment.systemEnvironment()
        paths = [library_folder(), environment.value("PYTHONPATH", "")]
        environment.insert("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        environment.insert("PYTHONIOENCODING", "utf-8")
        process.setProcessEnvironment(environment)
        # A stopped process may still have signals under way; they must not reach the next one.
        process.readyReadStandardOutput.connect(lambda *_: self._read(process))
        process.readyReadStandardError.connect(lambda *_: self._overhear(process))
        process.finished.connect(lambda *_: self._ended(process))
        process.errorOccurred.connect(lambda *_: self._failed(process))
        self._process, self._rest = process, b""
        program, *arguments = self._command or worker_command()
        process.start(program, arguments)

    def _read(self, process: Any) -> None:
        if process is not self._process:
            return
        self._rest += process.readAllStandardOutput().data()
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > LONGEST_ANSWER:
            self._rest = b""
        for line in lines:
            self._answer(line.decode("utf-8", "replace"))

    def _answer(self, line: str) -> None:
        try:
            answer = json.loads(line)
            kind, number = answer["kind"], answer["id"]
        except (ValueError, TypeError, KeyError):
            self.log.append(line[:500])  # not from the worker: some library's chatter
            return
        listener = self._listener
        if listener is None or number != self._number:
            return
        if kind in ("result", "error"):
            self._listener = None
        try:
            listener(answer)
        except Exception:  # Qt has no use for it, and the next answer must still be heard
            logging.exception("CrossKEY: an answer of the worker could not be used")

    def _overhear(self, process: Any) -> None:
        text = process.readAllStandardError().data().decode("utf-8", "replace")
        self.log.extend(text.splitlines())

    def _failed(self, process: Any) -> None:
        if process.state() == qt.QProcess.NotRunning:  # never started: no "finished" will come
            self._ended(process)

    def _ended(self, process: Any) -> None:
        if process is not self._process:
            return
        self._read(process)
        self._overhear(process)
        self._process = None
        process.deleteLater()
        listener, self._listener = self._listener, None
        if listener is not None:
            said = last_words(self.log) or _("it said nothing")
            message = _("The computation ended unexpectedly: {said}").format(said=said)
            listener({"kind": "error", "message": message, "expected": False})


_shared = WorkerProcess()


def shared_worker() -> WorkerProcess:
    """The one of this application, so that the console finds the panel's worker warm."""
    return _shared
