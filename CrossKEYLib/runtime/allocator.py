"""Memory that one tensor leaves is given to the next, instead of going through the system.

The C library of Linux returns large blocks to the system when they are freed. The next tensor of
that size then needs new pages, which the system has to find and clear. A registration uses many
short-lived tensors; this would take half of its time or more.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt, <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; for processes of our own, so never inside Slicer.

    Returns:
        Whether it took effect; other systems and C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, 64 << 20))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
