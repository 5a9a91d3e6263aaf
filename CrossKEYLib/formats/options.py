"""What a person chooses where a file or folder holds more than one image or orientation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError, InputWarning

Orientation = Literal["sform", "qform"]


@dataclass(frozen=True)
class ReadOptions:
    """Choices among what an input offers; an input that offers no choice ignores them.

    Attributes:
        series: DICOM series, each by its UID, number or description. Several may be given, as
            MRI and iUS may both lie in folders with more than one series.
        frame: which volume of a sequence, from 1.
        orientation: "sform" or "qform", for NIfTI files whose two orientations differ.

    Raises:
        InputError: a frame below 1, or another orientation.
    """

    series: tuple[str, ...] = ()
    frame: int | None = None
    orientation: str | None = None

    def __post_init__(self) -> None:
        if self.frame is not None and self.frame < 1:
            raise InputError(f"frame {self.frame}: frames are counted from 1")
        if self.orientation not in (None, *get_args(Orientation)):
            raise InputError(
                f"orientation {self.orientation!r}: expected {' or '.join(get_args(Orientation))}"
            )


def chosen_frame(options: ReadOptions, names: Sequence[str]) -> int:
    """Index of the chosen volume of a sequence whose volumes are called ``names``.

    Raises:
        InputError: none is chosen, or there are not as many.
    """
    count = len(names)
    if options.frame is None or options.frame > count:
        shown = [f"{n}: {name}" for n, name in enumerate(names, 1) if name]
        listed = f" ({'; '.join(shown[:20])}{'; ...' if len(shown) > 20 else ''})" if shown else ""
        asked = "" if options.frame is None else f", so there is no frame {options.frame}"
        raise InputError(
            f"a sequence of {count} volumes{listed}{asked}; choose one with --frame 1 to {count}"
        )
    tell(f"volume {options.frame} of {count} is used")
    return options.frame - 1


def tell(text: str) -> None:
    """Let the person know how an input was understood; `volumes.read_volume` adds the path."""
    warnings.warn(text, InputWarning, stacklevel=2)
