"""A timer in the event loop: how long Slicer would not have answered, and what it did meanwhile."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

INTERVAL_MS = 10
LIMIT_MS = 100  # of an answer, as a user wants it
# What a computer that does other work besides, in which all takes some times longer, may add.
SPARED, SPARED_MS = 3, 300


class Ticks:
    """Between two ticks passes what the event loop was kept from answering.

    Wall-clock time on a computer that other programs keep busy says little about the panel; the
    processor time of the thread that runs the event loop is the panel's own doing.

    Attributes:
        wall_ms, own_ms: between ticks, over all spans; own is processor time of this thread.
        spans_s: wall-clock time of each span.
    """

    def __init__(self) -> None:
        self.wall_ms, self.own_ms = np.empty(0), np.empty(0)
        self.spans_s: list[float] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A span of time; the timer runs in it."""
        import qt

        times: list[tuple[float, float]] = []

        def tick() -> None:
            times.append((time.monotonic(), time.thread_time()))

        timer = qt.QTimer()
        timer.setInterval(INTERVAL_MS)
        timer.timeout.connect(tick)
        # What hundreds of tests before this one left in memory is not the panel's to clean up.
        gc.collect()
        gc.freeze()
        timer.start()
        tick()
        yield
        tick()
        timer.stop()
        gc.unfreeze()
        wall, own = 1000 * np.diff(np.array(times), axis=0).T
        self.wall_ms, self.own_ms = np.append(self.wall_ms, wall), np.append(self.own_ms, own)
        self.spans_s.append(times[-1][0] - times[0][0])

    def answered(self, late_share: float = 0.02) -> bool:
        """Within the limit all along, but for what a busy computer is to blame for, which may also
        keep this share of the ticks waiting."""
        own, waited = self.own_ms > LIMIT_MS, self.wall_ms > LIMIT_MS
        kept = own.sum() > SPARED or self.own_ms.max() >= SPARED_MS
        return bool(not kept and waited.mean() < late_share)

    def figures(self) -> dict[str, float | list[float]]:
        return {
            "seconds": [round(span, 1) for span in self.spans_s],
            "ticks": len(self.wall_ms),
            "median_ms": round(float(np.median(self.wall_ms)), 1),
            "longest_ms": round(float(self.wall_ms.max()), 1),
            "over_100_ms": int((self.wall_ms > LIMIT_MS).sum()),
            "longest_own_ms": round(float(self.own_ms.max()), 1),
        }
