"""How our own processes use the processor, and that a host process keeps its settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from CrossKEYLib.runtime import threads

ROOT = Path(__file__).parents[3]
SETTINGS = ("OMP_", "GOMP_", "KMP_", "LOCAL_WORLD_SIZE")


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Python in an environment without settings of threads but those given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "VERBOSE", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def openmp(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What OpenMP itself says, when it is loaded, that it will do."""
    return dict(re.findall(r"(\w+) = '([^']*)'", done.stderr))


linux = pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP tells its settings on Linux")


@linux
def test_threads_of_the_worker_do_not_spin():
    told = openmp(run("-m", "CrossKEYLib.worker"))
    assert told["GOMP_SPINCOUNT"] == "0"
    cores = threads.usable_cores()
    assert int(told["OMP_NUM_THREADS"]) == (cores - 1 if cores > 2 else cores)


@linux
def test_threads_of_the_command_do_not_spin(tmp_path):
    output = str(tmp_path / "points.mrk.json")
    told = openmp(
        run("-m", "CrossKEYLib", "keypoints", "--image", "missing.nii.gz", "--output", output)
    )
    assert told["GOMP_SPINCOUNT"] == "0"


@linux
def test_what_the_user_has_set_wins():
    told = openmp(run("-m", "CrossKEYLib.worker", OMP_NUM_THREADS="1", GOMP_SPINCOUNT="77"))
    assert told["GOMP_SPINCOUNT"] == "77"
    assert told["OMP_NUM_THREADS"] == "1"


@linux
def test_a_host_process_keeps_its_settings():
    program = "import CrossKEYLib, torch, os; print(os.nice(0), os.environ.get('OMP_WAIT_POLICY'))"
    done = run("-c", program)
    assert done.stdout.split() == [str(os.nice(0)), "None"]
    assert int(openmp(done)["GOMP_SPINCOUNT"]) > 0


@pytest.mark.parametrize(
    ("program", "cores", "expected"),
    [("crosskey", 8, "8"), (threads.WORKER, 8, "7"), (threads.WORKER, 2, "2")],
)
def test_number_of_threads(program, cores, expected):
    environment: dict[str, str] = {}
    threads.set_threads(environment, program, cores)
    assert environment["OMP_NUM_THREADS"] == expected


def test_processes_of_torchrun_share_the_cores():
    environment = {"LOCAL_WORLD_SIZE": "3"}
    threads.set_threads(environment, "CrossKEYLib", 8)
    assert environment["OMP_NUM_THREADS"] == "2"


def test_a_container_with_a_share_of_the_processor_gets_no_more_threads(tmp_path):
    limit = tmp_path / "cpu.max"
    limit.write_text("100000 100000\n")
    assert threads.usable_cores(limit) == 1
    limit.write_text("max 100000\n")
    assert threads.usable_cores(limit) == threads.usable_cores(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "nice"), reason="Windows has classes of priority instead")
def test_the_worker_gives_way_to_the_application():
    program = (
        "import sys; sys.orig_argv = ['python', '-m', 'CrossKEYLib.worker']; sys.argv = ['-m']; "
        "import os, CrossKEYLib; print(os.nice(0))"
    )
    assert int(run("-c", program).stdout) > os.nice(0)
