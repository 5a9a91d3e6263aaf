"""What is measured is what a process took, and ratios are of this run."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from phantoms.registered import pair

from Testing.Studies import speed
from Testing.Studies.measuring import AskedWorker, busy, environment, machine, measured
from Testing.Studies.speed import FAR, REFUSED, WARM, Row

FAKE = Path(__file__).parents[2] / "Slicer" / "fake_worker.py"
HUNGRY = """
import sys, time
held = b"x" * (300 << 20)
while time.process_time() < 0.3:
    pass
sys.exit(3)
"""


def fake(mode: str, seconds: float):
    return lambda threads: AskedWorker(threads, [sys.executable, str(FAKE), mode, str(seconds)])


def row(kind: str, seconds: float, beside: bool = False, threads: int = 2) -> Row:
    return Row("pair", kind, threads, beside, seconds, None, 1536.0, 3, 3)


def test_a_process_is_measured_from_outside() -> None:
    ours = b"x" * (600 << 20)  # no part of what the child holds
    done = measured([sys.executable, "-c", HUNGRY], 1)
    assert len(ours) == 600 << 20
    assert done.status == 3
    assert 0.3 <= done.processor_seconds < 10
    assert done.seconds >= 0.25
    assert 300 < done.peak_mb < 500


def test_threads_of_a_child_are_those_asked_for_and_sleep(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    there = environment(1)
    assert (there["OMP_NUM_THREADS"], there["OMP_WAIT_POLICY"]) == ("1", "PASSIVE")


def test_the_worker_is_asked_as_the_panel_asks_it(tmp_path) -> None:
    files = speed.write_files(*pair(), tmp_path / "case", 2)
    assert len({path.read_bytes() for path in (*files.near, *files.far)}) == 4
    rows = speed.warm("pair", files, 1, start=fake("accept", 0.2))
    assert [r.kind for r in rows] == [WARM, FAR, REFUSED]
    assert all(0.2 <= r.seconds < 30 and r.accepted == r.repeats == 2 for r in rows)
    peak = rows[-1].peak_mb
    assert peak is not None
    assert peak > 5
    (refused,) = speed.warm("pair", files, 1, [WARM], start=fake("refuse", 0.0))
    assert refused.accepted == 0


def test_a_worker_that_fails_is_told(tmp_path) -> None:
    failed = pytest.raises(RuntimeError, match="the worker could not register: ")
    with fake("fail", 0.0)(1) as worker, failed:
        worker.register(tmp_path, tmp_path)
    with fake("deaf", 0.0)(1) as worker, pytest.raises(RuntimeError, match="ended before"):
        worker.register(tmp_path, tmp_path)


def test_the_machine_is_kept_busy_for_the_whole_block() -> None:
    rounds = threading.Semaphore(0)

    def work() -> None:
        rounds.release()

    with busy(work):
        for _ in range(5):
            assert rounds.acquire(timeout=5)
    while rounds.acquire(blocking=False):
        pass
    assert not rounds.acquire(timeout=0.05)  # nothing works any more
    with pytest.raises(RuntimeError, match="keep the machine busy failed"), busy(lambda: 1 / 0):
        pass


def test_ratios_compare_with_what_was_accepted_alone_with_as_many_threads() -> None:
    rows = [row(WARM, 2.0), row(WARM, 3.0, beside=True), row(FAR, 3.2), row(REFUSED, 8.0)]
    rows += [row(WARM, 4.0, threads=1), row(REFUSED, 9.0, threads=1)]
    assert speed.ratios(rows) == {
        "pair, 2 threads: warm beside a busy process / alone": 1.5,
        "pair, 2 threads: arbitrary / accepted": 1.6,
        "pair, 2 threads: refused / accepted": 4.0,
        "pair, 1 threads: refused / accepted": 2.25,
    }
    text = speed.table(rows, machine())
    assert "| pair | warm | 2 | busy | 3.0 |  | 1.50 GB | 3 of 3 |" in text
    assert "| pair, 2 threads: refused / accepted | 4.00 |" in text
    assert f"cores {machine()['cores']}" in text


def test_every_part_is_measured_and_written_unless_some_are_asked_for(
    monkeypatch, tmp_path, capsys
) -> None:
    asked = []

    def part(name: str, many: bool):
        def measure(case, files, threads, *more):
            asked.append((name, threads))
            assert files.mri.exists()
            found = row(WARM if many else name, 2.0, name == "beside", threads)
            return [found] if many else found

        return measure

    for name in ("cold", "published"):
        monkeypatch.setattr(speed, name, part(name, many=False))
    for name in ("warm", "beside"):
        monkeypatch.setattr(speed, name, part(name, many=True))
    mri, ius = pair()
    mri.write(tmp_path / "mri.nii")
    ius.write(tmp_path / "ius.nii")
    given = ["--mri", str(tmp_path / "mri.nii"), "--ius", str(tmp_path / "ius.nii")]
    given += ["--output", str(tmp_path / "out")]
    speed.main(given)
    once = [("beside", 2), ("published", 2)]
    assert asked == [("cold", 1), ("warm", 1), ("cold", 2), ("warm", 2), *once]
    content = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert len(content["rows"]) == 6
    assert content["ratios"] == {"pair, 2 threads: warm beside a busy process / alone": 1.0}
    assert "| pair | warm | 2 | busy | 2.0 |" in (tmp_path / "out" / "speed.md").read_text()
    assert "pair, warm, 2 threads, beside a busy process: 2.0 s" in capsys.readouterr().out
    asked.clear()
    speed.main([*given, "--threads", "1", "--part", "published"])
    assert asked == [("published", 1)]
    asked.clear()
    speed.main([*given, "--part", "beside"])
    assert asked == [("cold", 2), ("warm", 2), ("beside", 2)]
