"""One job at a time for the worker: begun, followed, waited for, ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..problem import Cancelled, Problem
from .job import Job
from .process import WorkerProcess, shared_worker

POLL_S = 0.01

Finish = Callable[[dict[str, Any]], None]
Trained = Callable[[Job, dict[str, Any]], None]


class JobRunner:
    """What a logic needs to have work done in the worker process.

    Attributes:
        worker: the process that computes.
        job: the last one begun, also when it has ended.
        onChange: called whenever the job has changed.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        self.worker = worker or shared_worker()
        self.job: Job | None = None
        self.onChange: Callable[[], None] = lambda: None

    @property
    def busy(self) -> bool:
        return self.job is not None and self.job.running

    @property
    def installing(self) -> bool:
        """Which nobody can stop half-way."""
        return self.busy and self.job is not None and self.job.kind == "install"

    def cancel(self) -> None:
        """Stop the work; a preparation goes on from where it was when it is started again."""
        if not self.installing:
            self._stop(_("Cancelled."))

    def _checkIdle(self) -> None:
        if self.busy or self.worker.busy:
            raise Problem(_("CrossKEY is already at work; wait, or cancel first."))

    def _begin(
        self, job: Job, request: dict[str, Any], finish: Finish, trained: Trained | None = None
    ) -> None:
        """Have a job done.

        Args:
            request: see `CrossKEYLib.worker`.
            finish: takes the result into the scene, and may change what the job reports of it.
            trained: hears of every step of a training.
        """
        self.job = job
        self.worker.ask(request, lambda answer: self._answered(job, answer, finish, trained))
        self.onChange()

    def _answered(
        self, job: Job, answer: dict[str, Any], finish: Finish, trained: Trained | None
    ) -> None:
        if not job.running:
            return
        kind = answer["kind"]
        try:
            if kind == "progress":
                job.stage = answer["stage"]
            elif kind == "training":
                if trained is not None:
                    trained(job, answer)
            elif kind == "result":
                self._finish(job, answer, finish)
            else:
                job.end("failed", answer["message"])
        except Exception as error:  # of this answer; without an end the panel would wait for ever
            known = isinstance(error, Problem)
            job.end("failed", str(error) if known else f"{type(error).__name__}: {error}")
        self.onChange()

    def _finish(self, job: Job, answer: dict[str, Any], finish: Finish) -> None:
        if not all(slicer.mrmlScene.IsNodePresent(node) for node in job.inputs):
            raise Problem(
                _("An image was removed while CrossKEY was at work; nothing was changed.")
            )
        job.result = {k: v for k, v in answer.items() if k not in ("id", "kind")}
        finish(job.result)
        job.share = 1.0
        job.end("done")

    def _stop(self, message: str) -> None:
        if self.busy and self.job is not None:
            # The worker ends before its files go: it may be reading them, or still write one.
            self.job.state, self.job.message = "cancelled", message
            self.worker.stop()
            self.job.remove_files()
            self.onChange()

    def _wait(self) -> dict[str, Any]:
        """The result, when the work is done; Slicer goes on answering meanwhile.

        Raises:
            Problem: it failed or was cancelled; the text says why.
        """
        job = self.job
        assert job is not None
        while job.running:
            slicer.app.processEvents()
            time.sleep(POLL_S)
        if job.state == "done":
            return job.result
        raise (Cancelled if job.state == "cancelled" else Problem)(job.message)
