"""What a process takes: time, processor time and memory, measured from outside; and the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from CrossKEYLib.runtime.threads import COMMAND, set_threads, usable_cores

POLL_S = 0.02
WORKER_COMMAND = (sys.executable, "-m", "CrossKEYLib.worker")


@dataclass(frozen=True)
class Measured:
    """One process from its start to its end.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all its threads, the system's time included.
        peak_mb: most memory that it held.
        status: exit status.
    """

    seconds: float
    processor_seconds: float
    peak_mb: float
    status: int


def machine(device: torch.device | None = None) -> dict[str, str | int]:
    """Names of processor, cores, system and versions, and of the GPU where one computes."""
    named: dict[str, str | int] = {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device is not None and device.type == "cuda":
        named["gpu"] = torch.cuda.get_device_name(device)
    return named


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(threads: int) -> dict[str, str]:
    """Of a child with this many threads, which wait as those of our commands do."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    set_threads(kept, COMMAND, threads)
    return kept


def measured(command: Sequence[str], threads: int) -> Measured:
    """Run a command to its end, whatever its exit status; its output is dropped."""
    start = time.perf_counter()
    silent = subprocess.DEVNULL
    child = subprocess.Popen(command, env=environment(threads), stdout=silent, stderr=silent)
    return _ended(child, start)


def _ended(child: subprocess.Popen[Any], start: float) -> Measured:
    peak, ended = 0.0, 0
    while not ended:
        peak = max(peak, _own_peak_mb(child.pid))
        ended, status, used = os.wait4(child.pid, os.WNOHANG)
        time.sleep(0 if ended else POLL_S)
    child.returncode = os.waitstatus_to_exitcode(status)
    if not peak:  # no Linux
        peak = used.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    seconds, processor = time.perf_counter() - start, used.ru_utime + used.ru_stime
    return Measured(seconds, processor, peak, child.returncode)


def _own_peak_mb(pid: int) -> float:
    """Most memory so far of a living process; 0 where Linux does not tell.

    What the system counts when the process has ended includes its parent's memory at the fork.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


class AskedWorker:
    """The panel's warm process, asked as the panel asks it.

    Args:
        threads: of the processor.
        command: starts it.
    """

    def __init__(self, threads: int, command: Sequence[str] = WORKER_COMMAND) -> None:
        self._start = time.perf_counter()
        self._child = subprocess.Popen(
            command,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._number = 0

    def register(self, mri: Path, ius: Path) -> tuple[float, dict[str, Any]]:
        """Seconds from the request to its result, and the result.

        Raises:
            RuntimeError: the worker answers with an error, or has ended.
        """
        self._number += 1
        request = {"id": self._number, "do": "register", "mri": str(mri), "ius": str(ius)}
        start = time.perf_counter()
        with suppress(BrokenPipeError):  # it has ended, which reading tells
            _pipe(self._child.stdin).write(json.dumps(request) + "\n")
            _pipe(self._child.stdin).flush()
        for line in _pipe(self._child.stdout):
            answer = json.loads(line)
            if answer["id"] != self._number:
                continue
            if answer["kind"] == "error":
                raise RuntimeError(f"the worker could not register: {answer['message']}")
            if answer["kind"] == "result":
                return time.perf_counter() - start, answer
        raise RuntimeError("the worker has ended before it answered")

    def close(self) -> Measured:
        """End it; what it took over its whole life."""
        with suppress(BrokenPipeError):
            _pipe(self._child.stdin).close()
        done = _ended(self._child, self._start)
        _pipe(self._child.stdout).close()
        return done

    def __enter__(self) -> AskedWorker:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._child.returncode is None:
            self.close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Repeat ``work`` beside the block, from before it begins until it has ended."""
    stopped, began, failure = threading.Event(), threading.Event(), []

    def repeat() -> None:
        while not stopped.is_set():
            began.set()
            try:
                work()
            except Exception as error:  # told in the thread that measures
                failure.append(error)
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    if failure:
        raise RuntimeError("what was to keep the machine busy failed") from failure[0]
