"""Number of threads of our own processes, and how they wait.

At the end of each parallel region, OpenMP's threads spin until all have finished. If another
process occupies a core, they spin in vain, and a registration takes ten times as long. Sleeping
threads take only the time that their share of the processor requires. OpenMP reads its settings
once, when it is loaded, so they are set before torch is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
COMMAND, WORKER = "crosskey", f"{PACKAGE}.worker"
WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # GNU (Linux) and LLVM (macOS)
    "KMP_BLOCKTIME": "0",  # Intel (Windows)
}
THREADS = "OMP_NUM_THREADS"
_NICENESS = 5  # of 19
_BELOW_NORMAL_PRIORITY_CLASS = 0x4000  # of Windows
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor, of a period


def own_program() -> str | None:
    """The module that ``python -m`` runs, or the command; None in a process of someone else.

    Slicer, a notebook or a script that imports the library keeps its own settings.
    """
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # so while the package of the module is imported
        options = sys.orig_argv
        module = options[options.index("-m") + 1] if "-m" in options[:-1] else ""
        return module if module.partition(".")[0] == PACKAGE else None
    return COMMAND if Path(first).name.partition(".")[0] == COMMAND else None


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may run on, at least one.

    Args:
        quota: the file in which Linux tells a container's share of the processor.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no container, or "max": no limit
        most, period = quota.read_text(encoding="ascii").split()
        cores = min(cores, int(most) // int(period))
    return max(1, cores)


def set_threads(environment: MutableMapping[str, str], program: str, cores: int) -> None:
    """Write the settings into ``environment``; what the user has set there stays.

    Args:
        environment: of this process, before torch is imported.
        program: see `own_program`. The worker leaves one core to the application that started it
            where there are more than two.
        cores: see `usable_cores`. Processes that torchrun starts share them.
    """
    if program == WORKER and cores > 2:
        cores -= 1
    processes = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    for name, value in {**WAITING, THREADS: str(max(1, cores // processes))}.items():
        environment.setdefault(name, value)


def lower_priority() -> None:
    """Let interactive processes run first; where the system forbids it, nothing changes."""
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL_PRIORITY_CLASS)
    else:
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)


def set_up_process() -> None:
    """Apply all of this where the process is our own; called when the package is imported."""
    program = own_program()
    if program is None or "torch" in sys.modules:
        return
    set_threads(os.environ, program, usable_cores())
    if program == WORKER:
        lower_priority()
