"""One piece of work under way: what it is, how far it is, how it ended."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import slicer


def private_folder() -> Path:
    """An empty folder that only this user can read; images of a patient go into it."""
    return Path(tempfile.mkdtemp(prefix="CrossKEY-", dir=slicer.app.temporaryPath))


@dataclass
class Job:
    """
    Attributes:
        kind: "register", "prepare", "landmarks", "similarity" or "install".
        inputs: nodes that must still be in the scene at the end.
        state: "running", then "done", "failed" or "cancelled".
        stage: what is being done.
        share: of the work done, 0 to 1; None while that is unknown.
        result: of the worker, when done.
        message: why it failed.
        folder: for files, gone when the job has ended.
        begun: by the monotonic clock, seconds.
    """

    kind: str
    inputs: tuple[Any, ...]
    state: str = "running"
    stage: str = "starting"
    share: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    folder: Path = field(default_factory=private_folder)
    begun: float = field(default_factory=monotonic)

    @property
    def running(self) -> bool:
        return self.state == "running"

    def end(self, state: str, message: str = "") -> None:
        self.state, self.message = state, message
        self.remove_files()

    def remove_files(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def new_job(kind: str, *inputs: Any) -> Iterator[Job]:
    """A job that leaves no folder behind if it cannot even be begun."""
    job = Job(kind, inputs)
    try:
        yield job
    except BaseException:
        job.end("failed")
        raise
