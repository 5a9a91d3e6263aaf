"""Freed memory is used again, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from CrossKEYLib.runtime.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
for _ in range(20):  # an aligned block needs a little more room than one just freed leaves
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    """Pages that the system had to find for twenty tensors of 80 MB."""
    program = SCRIPT.format(keep=keep)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux is changed")
def test_a_freed_tensor_makes_room_for_the_next():
    assert page_faults(keep=True) * 100 < page_faults(keep=False)
