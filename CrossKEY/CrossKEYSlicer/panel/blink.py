"""Ultrasound and MRI in turn: what moves between the two does not fit."""

from __future__ import annotations

from collections.abc import Callable

import qt


class Blink:
    """Shows and hides the ultrasound in turn until it is stopped.

    Args:
        fade: sets the opacity of the ultrasound, 0 to 1.
    """

    def __init__(self, fade: Callable[[float], None]) -> None:
        self._fade = fade
        self._shown = True
        self._timer = qt.QTimer()
        self._timer.timeout.connect(self._turn)

    def pace(self, rate: float) -> None:
        """Show the ultrasound this often in a second, and the MRI equally long."""
        half = round(500 / rate)
        if half != self._timer.interval:  # setting it begins the time of what is shown anew
            self._timer.setInterval(half)

    def start(self) -> None:
        self._timer.start()
        self._turn()

    def stop(self, opacity: float) -> None:
        """End it with the ultrasound at ``opacity``."""
        if self._timer.isActive():
            self._timer.stop()
            self._shown = True
            self._fade(opacity)

    def _turn(self) -> None:
        self._shown = not self._shown
        self._fade(1.0 if self._shown else 0.0)
