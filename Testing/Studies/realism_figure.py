"""The picture that goes with `realism`: slices, histograms, speckle widths, profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from CrossKEYLib.formats.atomic import whole

from .appearance import BINS, Appearance
from .realism import mean_profile

COLUMNS = 6
WIDE_MM, DEEP_MM = 96.0, 72.0  # of a slice
REAL, SIMULATED = "#1b6ca8", "#d1661c"


def write_figure(
    path: Path,
    real: Sequence[Appearance],
    simulated: Sequence[Appearance],
    real_shown: Sequence[Appearance],
    simulated_shown: Sequence[Appearance],
    spacing_mm: float,
) -> None:
    """Write rows of slices (beam downwards) over curves of all volumes.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [("real", x) for x in _rows(real_shown)]
    rows += [("simulated", x) for x in _rows(simulated_shown[: 3 * COLUMNS])]
    height = 1.75 * len(rows) + 3.4
    figure = Figure(figsize=(12, height), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [max(1.75 * len(rows), 0.1), 3.4]
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    if rows:
        axes = parts[0].subplots(len(rows), COLUMNS, squeeze=False)
        for line, (name, looks) in zip(axes, rows, strict=True):
            _slices(line, name, looks, spacing_mm)
    left, middle, right = parts[1].subplots(1, 3)
    _histograms(left, real, simulated)
    _widths(middle, real, simulated)
    _profiles(right, real, simulated, spacing_mm)
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _rows(looks: Sequence[Appearance]) -> list[Sequence[Appearance]]:
    return [looks[n : n + COLUMNS] for n in range(0, len(looks), COLUMNS)]


def _slices(line: np.ndarray, name: str, looks: Sequence[Appearance], spacing_mm: float) -> None:
    for axes in line:
        axes.axis("off")
    for axes, look in zip(line, looks, strict=False):
        depth, width = (n * spacing_mm for n in look.section.shape)
        extent = (-width / 2, width / 2, depth, 0)
        axes.imshow(look.section, cmap="gray", vmin=0, vmax=1, extent=extent)
        axes.set(xlim=(-WIDE_MM / 2, WIDE_MM / 2), ylim=(DEEP_MM, 0))
    line[0].set_title(name, loc="left", fontsize=10)


def _histograms(axes: Axes, real: Sequence[Appearance], simulated: Sequence[Appearance]) -> None:
    centres = (np.arange(BINS) + 0.5) / BINS
    for looks, colour, name in ((simulated, SIMULATED, "simulated"), (real, REAL, "real")):
        stack = np.stack([x.histogram for x in looks]) * BINS
        low, high = np.percentile(stack, [10, 90], axis=0)
        axes.fill_between(centres, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(centres, stack.mean(0), color=colour, label=name)
    axes.set(xlabel="scaled intensity", ylabel="density", title="Brightness", ylim=(0, 5))
    axes.legend(frameon=False)


def _widths(axes: Axes, real: Sequence[Appearance], simulated: Sequence[Appearance]) -> None:
    for shift, looks, colour in ((-0.2, real, REAL), (0.2, simulated, SIMULATED)):
        for place, key in enumerate(("along_mm", "across_mm")):
            values = np.array([getattr(x, key) for x in looks])
            axes.bar(place + shift, values.mean(), 0.36, color=colour, alpha=0.45)
            spots = place + shift + np.linspace(-0.12, 0.12, len(values))
            axes.plot(spots, values, ".", color=colour, markersize=4)
    axes.set_xticks([0, 1], ["along the beam", "across the beam"])
    axes.set(ylabel="width of autocorrelation (mm)", title="Speckle")


def _profiles(
    axes: Axes, real: Sequence[Appearance], simulated: Sequence[Appearance], spacing_mm: float
) -> None:
    for looks, colour in ((simulated, SIMULATED), (real, REAL)):
        for look in looks:
            depth = np.arange(len(look.profile)) * spacing_mm
            axes.plot(depth, look.profile, color=colour, alpha=0.2, linewidth=0.7)
        mean = mean_profile(looks)
        axes.plot(np.arange(len(mean)) * spacing_mm, mean, color=colour, linewidth=2)
    axes.set(xlabel="depth below the near surface (mm)", ylabel="scaled intensity")
    axes.set(title="Profile over depth", ylim=(0, 1))
