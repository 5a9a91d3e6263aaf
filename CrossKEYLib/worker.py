"""The process behind the panel, which keeps its state: one JSON object a line in, one a line out.

    PythonSlicer -m CrossKEYLib.worker

Requests (stdin):

    {"id": 1, "do": "register", "mri": PATH, "ius": PATH, "model": PATH or null,
     "initial": 4x4 or null, "transform": "rigid", "device": "auto", "seed": 0,
     "mri_mask": PATH or null, "ius_mask": PATH or null}
    {"id": 2, "do": "prepare", "mri": [PATH, ...], "synthetic_us": FOLDER or null,
     "output": PATH, "model": PATH or null, "minutes": 10, "device": "auto", "seed": 0}
    {"id": 3, "do": "landmarks", "from_image": PATH, "to_image": PATH, "points": [[R, A, S], ...],
     "similarity": {"point": [R, A, S], "output": PATH} or null, "model": PATH or null,
     "device": "auto"}

Points of "landmarks" are RAS mm in the coordinate system of their own image. Without points only
the similarity map is made. The answer holds ``points``, ``scores``, ``spreads`` (mm), ``found``
("good", "check" or "absent"), ``why`` (reasons against "good", see `found.Landmarks`), and
``pose``: the transform between the images.

Answers (stdout), each with the request's ``id`` and a ``kind``: "ready" once at the start,
"progress" (``stage``), "training" (``step``, ``steps``, ``loss``, ``precision``, ``seconds``), and
one "result" or "error" (``message``; ``expected`` tells bad input from a fault of the program).

Everything that a library prints goes to stderr, so stdout holds only answers. The process ends when
stdin closes, even in the middle of its work, so it never outlives the application that started it.
To cancel, end the process; `prepare` continues from its checkpoint when it is requested again.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from .config import RegisterConfig, Transform
from .errors import CrossKEYError, InputError
from .estimation.target_error import target_errors
from .formats.volumes import read_mask
from .geometry.volume import Volume
from .landmarks.cache import EmbeddedImages
from .landmarks.propagate import check_inside
from .models.patient import Model, fingerprint
from .models.universal import UniversalModel
from .registration.pipeline import register
from .registration.result import Registration
from .runtime.allocator import keep_freed_memory
from .runtime.device import pick_device
from .runtime.progress import Progress
from .runtime.version import __version__
from .training.patient.prepare import prepare_file

Send = Callable[[dict[str, Any]], None]


class Worker:
    """Answers requests. Keeps the last model, the described points of the last MRI, and the
    embeddings of the last images in which landmarks were found.

    Args:
        send: takes one answer at a time.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._kept: tuple[tuple[str, ...], Model] | None = None
        self._embedded: tuple[str, EmbeddedImages] | None = None

    def answer(self, line: str) -> None:
        """Answer the request of one line; every error becomes an error answer."""
        number = None
        try:
            request = _read(line)
            number = request.pop("id")
            task = self._task(request.pop("do", None))
            result = task(partial(self._say, number), **request)
            self._say(number, "result", **result)
        except CrossKEYError as error:
            self._say(number, "error", message=str(error), expected=True)
        except Exception as error:  # the panel must be told, and the next request may succeed
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self._say(number, "error", message=text, expected=False)

    def _task(self, name: Any) -> Callable[..., dict[str, Any]]:
        tasks = {
            "register": self._register,
            "prepare": self._prepare,
            "landmarks": self._landmarks,
        }
        if name not in tasks:
            raise InputError(f"cannot do {name!r}; expected one of {', '.join(tasks)}")
        return tasks[name]

    def _say(self, number: Any, kind: str, **values: Any) -> None:
        self._send({"id": number, "kind": kind, **values})

    def _register(
        self,
        tell: Callable[..., None],
        mri: str,
        ius: str,
        model: str | None = None,
        initial: list[list[float]] | None = None,
        transform: Transform = "rigid",
        device: str = "auto",
        seed: int = 0,
        mri_mask: str | None = None,
        ius_mask: str | None = None,
    ) -> dict[str, Any]:
        tell("progress", stage="reading")
        place = pick_device(device)
        fixed, moving = (Volume.read(path).to(place) for path in (mri, ius))
        brain, view = (
            None if path is None else read_mask(path).to(place) for path in (mri_mask, ius_mask)
        )
        stamps = ("" if path is None else _stamp(path) for path in (model, mri_mask))
        key = (fingerprint(fixed), *stamps, str(place))
        warm = self._kept is not None and self._kept[0] == key
        used = self._kept[1] if warm and self._kept else Model.load(model).to(place)
        result = register(
            fixed,
            moving,
            used,
            initial=None if initial is None else np.array(initial, float),
            fixed_mask=brain,
            moving_mask=view,
            config=RegisterConfig().estimating(transform),
            seed=seed,
            progress=lambda stage: tell("progress", stage=stage),
        )
        self._kept = (key, replace(used, described=result.fixed))
        return {**result.report(), "warm": warm, "matches": _matches(result)}

    def _prepare(
        self,
        tell: Callable[..., None],
        mri: list[str],
        output: str,
        synthetic_us: str | None = None,
        model: str | None = None,
        minutes: float = 10.0,
        device: str = "auto",
        seed: int = 0,
    ) -> dict[str, Any]:
        def report(progress: Progress) -> None:
            loss = progress.loss if np.isfinite(progress.loss) else None
            tell("training", **{**asdict(progress), "loss": loss})

        made = prepare_file(
            [Path(path) for path in mri],
            Path(output),
            synthetic_us=None if synthetic_us is None else Path(synthetic_us),
            start=None if model is None else Path(model),
            minutes=minutes,
            device=pick_device(device),
            seed=seed,
            report=report,
            progress=lambda stage: tell("progress", stage=stage),
        )
        return {"output": output, "name": made.name, "mri": list(made.mri), "history": made.history}

    def _landmarks(
        self,
        tell: Callable[..., None],
        from_image: str,
        to_image: str,
        points: list[list[float]],
        similarity: dict[str, Any] | None = None,
        model: str | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        start = time.perf_counter()
        tell("progress", stage="reading")
        place = pick_device(device)
        here, there = (Volume.read(path).to(place) for path in (from_image, to_image))
        wanted = torch.tensor(points, dtype=torch.float32).reshape(-1, 3)
        check_inside(here, wanted)
        images = self._embedder(model)
        warm = images.knows(here) and images.knows(there)
        if not warm:
            tell("progress", stage="describing the images")
        pair = images.pair(here, there)
        found: dict[str, Any] = {"points": [], "scores": [], "spreads": [], "found": [], "why": []}
        if points:
            tell("progress", stage="finding the points")
            located = pair.locate(wanted)
            parts = ("points", "scores", "spreads")
            found = {name: getattr(located, name).tolist() for name in parts}
            found["found"], found["why"] = located.found, located.why
        if similarity is not None:
            tell("progress", stage="similarity map")
            point = torch.tensor(similarity["point"], dtype=torch.float32)
            check_inside(here, point.reshape(1, 3))
            pair.similarity_map(point).write(similarity["output"])
        seconds = {"total": round(time.perf_counter() - start, 2)}
        pose = pair.pose.report()
        return {**found, "pose": pose, "warm": warm, "seconds": seconds, "device": str(place)}

    def _embedder(self, model: str | None) -> EmbeddedImages:
        """The one in use; a new one when the model is another."""
        stamp = "" if model is None else _stamp(model)
        if self._embedded is None or self._embedded[0] != stamp:
            self._embedded = (stamp, EmbeddedImages(UniversalModel.load(model)))
        return self._embedded[1]


def _read(line: str) -> dict[str, Any]:
    """A request from its line.

    Raises:
        InputError: not JSON, or not a request.
    """
    try:
        request = json.loads(line)
    except ValueError as error:
        raise InputError(f"a request is one JSON object a line: {error}") from error
    if not isinstance(request, dict) or "id" not in request:
        raise InputError('a request is a JSON object with "id" and "do"')
    return request


def _stamp(path: str) -> str:
    """Changes when the file does."""
    try:
        found = os.stat(path)
    except OSError:
        return path  # reading it says what is wrong
    return f"{path} {found.st_mtime_ns} {found.st_size}"


def _matches(result: Registration) -> dict[str, list[Any]]:
    """Matches to show: points (RAS mm, each image's own world), score, residual (mm), inlier."""
    scores = result.drawn()[0].scores
    fixed, moving, inliers = result.drawn_points()
    residuals: list[float] = []
    if result.matrix is not None:
        residuals = target_errors(result.matrix, fixed, moving).tolist()
    return {
        "mri": fixed.tolist(),
        "ius": moving.tolist(),
        "score": scores.tolist(),
        "residual_mm": residuals,
        "inlier": inliers.tolist(),
    }


def _own_stdout() -> IO[str]:
    """The real stdout, for answers only; all other output goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _requests() -> queue.SimpleQueue[str]:
    """Lines of stdin, read in a thread, so that its end ends the process at once."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            if line.strip():
                lines.put(line)
        os._exit(0)  # the application has ended; nobody reads the answer

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    keep_freed_memory()
    answers = _own_stdout()

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer, allow_nan=False) + "\n")

    worker, requests = Worker(send), _requests()
    send({"id": None, "kind": "ready", "version": __version__})
    while True:
        worker.answer(requests.get())


if __name__ == "__main__":
    main()
