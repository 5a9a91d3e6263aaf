"""The warm process as the panel uses it: real process, real pipes, whatever comes down them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantoms.training import texture

from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.runtime.resources import resource

ROOT = Path(__file__).parents[2]
MRI, IUS = (str(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
MODEL = str(resource("Models/demo-patient.pt"))
PATIENCE_S = 240


class Process:
    """A worker and the answers it has given."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "CrossKEYLib.worker"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            bufsize=1,
        )
        assert self.process.stdin
        assert self.process.stderr
        self.stdin = self.process.stdin
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        readers = (self._pump, self.process.stderr.read)
        self.readers = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for reader in self.readers:
            reader.start()

    def _pump(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)

    def answer(self) -> dict[str, Any]:
        return json.loads(self.lines.get(timeout=PATIENCE_S))  # anything but JSON fails here

    def last(self) -> dict[str, Any]:
        """The next answer that ends a request."""
        while True:
            answer = self.answer()
            if answer["kind"] in ("result", "error"):
                return answer

    def ask(self, line: str | dict[str, Any]) -> dict[str, Any]:
        self.stdin.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        return self.last()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            with suppress(OSError):  # a last request that nobody reads any more
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts workers and ends them."""
    processes = []

    def start(*arguments: str) -> Process:
        processes.append(Process(*arguments))
        assert processes[-1].answer()["kind"] == "ready"
        return processes[-1]

    yield start
    for process in processes:
        process.end()


@pytest.fixture
def worker(start) -> Process:
    return start()


def test_two_registrations_the_second_warm(worker):
    request = {"id": "a", "do": "register", "mri": MRI, "ius": IUS, "model": MODEL}
    first = worker.ask(request)
    assert (first["id"], first["kind"], first["warm"]) == ("a", "result", False)
    second = worker.ask({**request, "id": "b"})
    assert (second["id"], second["warm"]) == ("b", True)
    fixed, moving = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    there = [transform.apply(np.array(answer["matrix_ras"]), moving) for answer in (first, second)]
    # Equal but for rounding, which may differ between two runs and which the search carries on.
    assert float((there[0] - there[1]).norm(dim=1).max()) < 0.3
    assert "MRI descriptors" in first["seconds"]
    assert "MRI descriptors" not in second["seconds"]
    assert second["accepted"]
    assert float((there[1] - fixed).norm(dim=1).mean()) < 1.5
    matches = second["matches"]
    residual, inlier = torch.tensor(matches["residual_mm"]), torch.tensor(matches["inlier"])
    shown = second["n_reported_matches"]
    assert len(residual) == shown == len(matches["mri"]) == len(matches["ius"])
    assert int(inlier.sum()) <= second["n_inliers"] <= second["n_matches"]
    assert shown < second["n_matches"]
    assert bool((residual[inlier] <= 4.01).all())


def test_masks_decide_where_matches_lie(worker, tmp_path):
    """Label volumes on grids of their own, as a segmentation is exported; the second request is
    warm, a changed mask makes it cold."""
    fixed, moving = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    masks = {"mri_mask": (fixed, 35.0, 3.0), "ius_mask": (moving, 25.0, 2.0)}
    request: dict[str, Any] = {"id": 1, "do": "register", "mri": MRI, "ius": IUS, "model": MODEL}
    for name, (points, radius, step) in masks.items():
        request[name] = str(tmp_path / f"{name}.nrrd")
        ball_mask(points.mean(0), radius, step).write(request[name])
    first = worker.ask(request)
    assert first["kind"] == "result", first
    for name, (points, radius, step) in masks.items():
        matched = torch.tensor(first["matches"]["mri" if name == "mri_mask" else "ius"])
        assert len(matched) > 20
        assert float((matched - points.mean(0)).norm(dim=1).max()) < radius + 2 * step
    assert worker.ask(request)["warm"]
    ball_mask(fixed.mean(0), 30.0, 3.0).write(request["mri_mask"])
    again = worker.ask(request)
    assert not again["warm"]
    matched = torch.tensor(again["matches"]["mri"])
    assert float((matched - fixed.mean(0)).norm(dim=1).max()) < 36


def ball_mask(centre: torch.Tensor, radius: float, step: float) -> Volume:
    """Label 3 within a ball."""
    size = 2 * int(radius / step) + 5
    corner = centre.numpy() - (size - 1) / 2 * step
    grid = Grid((size, size, size), transform.from_parts(np.eye(3) * step, corner))
    away = (grid.points() - centre.float()).norm(dim=-1)
    return Volume(3.0 * (away < radius), grid.ijk_to_ras)


def test_landmarks_the_second_question_warm(worker, tmp_path):
    image = texture(64, grain=2.5)
    shift = transform.from_parts(np.eye(3), [6.0, -4.0, 8.0])
    files = {"from_image": image, "to_image": image.moved(shift)}
    request: dict[str, Any] = {"id": 1, "do": "landmarks"}
    for name, volume in files.items():
        request[name] = str(tmp_path / f"{name}.nrrd")
        volume.write(request[name])
    points = image.points_ras(torch.tensor([[30.0, 32, 34], [26, 36, 30]]))
    output = tmp_path / "map.nrrd"
    similarity = {"point": points[0].tolist(), "output": str(output)}
    first = worker.ask({**request, "points": points.tolist()})
    assert first["kind"] == "result", first
    assert (first["warm"], output.exists()) == (False, False)
    truth = transform.apply(shift, points)
    assert float((torch.tensor(first["points"]) - truth).norm(dim=1).max()) < 2
    assert len(first["scores"]) == len(first["spreads"]) == len(first["found"]) == 2
    assert first["pose"]["inverse_consistency_mm"] is not None
    second = worker.ask({**request, "points": [], "similarity": similarity})
    assert (second["warm"], second["points"]) == (True, [])
    shown = Volume.read(output)
    peak = shown.points_ras((shown.array == shown.array.max()).nonzero().float())
    assert float((peak[0] - truth[0]).norm()) < 4
    outside = worker.ask({**request, "points": [[500.0, 0, 0]]})
    assert (outside["kind"], outside["expected"]) == ("error", True)
    assert "lies outside of its image" in outside["message"]


def test_bad_requests_are_answered_and_forgotten(worker, tmp_path_factory, tmp_path):
    good = {"id": 1, "do": "register", "mri": MRI, "ius": str(tmp_path / "none.nii.gz")}
    away = str(tmp_path_factory.mktemp("masks") / "away.nrrd")
    ball_mask(torch.tensor([900.0, 0, 0]), 20.0, 2.0).write(away)
    for line, words in (
        ("no json", "JSON"),
        ("[1, 2]", "JSON object"),
        ({"id": 3, "do": "dance"}, "dance"),
        (good, "none.nii.gz"),
        ({**good, "device": "abacus"}, "abacus"),
        ({**good, "ius": IUS, "mri_mask": str(tmp_path / "no-mask.nrrd")}, "no-mask.nrrd: no such"),
        ({**good, "ius": IUS, "mri_mask": away}, "mask of the MRI does not lie on it"),
        ({**good, "ius": IUS, "ius_mask": away}, "mask of the ultrasound does not lie on it"),
        ({"id": 4, "do": "prepare", "mri": [MRI], "output": str(tmp_path / "p.txt")}, ".pt"),
    ):
        answer = worker.ask(line)
        assert answer["kind"] == "error"
        assert answer["expected"] is True
        assert words in answer["message"]
        assert "\n" not in answer["message"]
    fault = worker.ask({"id": 9, "do": "register", "shoe": 1})
    assert (fault["id"], fault["kind"], fault["expected"]) == (9, "error", False)
    assert worker.process.poll() is None
    assert list(tmp_path.iterdir()) == []


def test_printing_libraries_do_not_disturb(start):
    """What Python or a C library writes to stdout comes out on stderr."""
    code = (
        "import os; from CrossKEYLib import worker as w;"
        "w.Worker.answer = lambda self, line: (print('garbage'), os.system('echo more'),"
        "self._say(7, 'result')); w.main()"
    )
    assert start("-c", code).ask("x") == {"id": 7, "kind": "result"}


def test_it_ends_with_its_application_even_while_it_works(worker, tmp_path):
    output = str(tmp_path / "p.pt")
    request = {"id": 1, "do": "prepare", "mri": [MRI], "output": output, "minutes": 9}
    worker.stdin.write(json.dumps(request) + "\n")
    assert worker.answer()["kind"] == "progress"
    worker.stdin.close()
    assert worker.process.wait(PATIENCE_S) == 0


def test_prepare_reports_and_survives_a_kill(start, tmp_path):
    """Killed in the middle, asked again: it goes on from its checkpoint and leaves only the
    model."""
    output = tmp_path / "patient.pt"
    request = {"id": 1, "do": "prepare", "mri": [MRI], "output": str(output), "minutes": 0.3}
    first = start()
    first.stdin.write(json.dumps(request) + "\n")
    while first.answer()["kind"] != "training":
        pass
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert not output.exists()
    done = start().ask(request)
    assert done["kind"] == "result", done
    assert done["history"]["steps"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["patient.pt"]
