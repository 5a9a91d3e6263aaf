"""The pictures of a benchmark: capture range of every method, and calibration of the trust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .benchmark import METHODS, OURS
from .calibration import RIGHT_MM, SUCCESS_MM, calibrate, succeeded, wilson
from .cases import FOREIGN
from .outcome import Outcome, own

# Okabe and Ito's colours, told apart by every kind of colour vision; black for the last.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
COLOURS = dict(zip(METHODS, PALETTE, strict=True))
MARKERS = dict(zip(METHODS, "osD^vXP", strict=True))
ACCEPTED, REFUSED = ("#0072b2", "o"), ("#d55e00", "s")
LEAST_SHOWN_MM = 0.05
TICKS_MM = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def capture(outcomes: Sequence[Outcome]) -> Figure:
    """Success against the size of the misplacement, and TRE after against TRE before."""
    outcomes = [o for o in outcomes if o["kind"] != FOREIGN]
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _capture(left, outcomes)
    _before_and_after(right, outcomes)
    return figure


def calibration(outcomes: Sequence[Outcome]) -> Figure:
    """Reliability of the confidence, and predicted against true TRE."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _reliability(left, outcomes)
    _predicted(right, outcomes)
    return figure


def _capture(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    levels = list(dict.fromkeys(o["level"] for o in outcomes))
    methods = list(dict.fromkeys(o["method"] for o in outcomes))
    for n, method in enumerate(methods):
        shares, ranges, places = [], [], []
        for place, level in enumerate(levels):
            part = [o for o in outcomes if (o["method"], o["level"]) == (method, level)]
            if part:
                hits = sum(map(succeeded, part))
                shares.append(hits / len(part))
                ranges.append(wilson(hits, len(part)))
                places.append(place + 0.08 * (n - (len(methods) - 1) / 2))  # bars side by side
        low, high = np.array(ranges).T
        bars = np.clip([np.array(shares) - low, high - shares], 0, None)
        axes.errorbar(
            places,
            shares,
            bars,
            color=COLOURS[method],
            label=method,
            marker=MARKERS[method],
            markersize=4,
            capsize=1.5,
            elinewidth=0.6,
        )
    axes.set_xticks(range(len(levels)), levels)
    axes.set(xlabel="misplacement (mm / degrees)", ylim=(-0.03, 1.03))
    axes.set(ylabel=f"share within {SUCCESS_MM:g} mm (95 % interval)", title="Capture range")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _before_and_after(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for o in outcomes:
        if o["start_tre_mm"] is not None and o["tre_mm"] is not None:
            found.setdefault(o["method"], []).append((o["start_tre_mm"], o["tre_mm"]))
    for method, errors in found.items():
        before, after = np.maximum(errors, LEAST_SHOWN_MM).T
        (line,) = axes.plot(before, after, linestyle="none", label=method, alpha=0.7)
        line.set(color=COLOURS[method], marker=MARKERS[method], markersize=4)
    axes.axhline(SUCCESS_MM, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
    _millimetres(axes, [mm for errors in found.values() for pair in errors for mm in pair])
    axes.set(title="Every registration (below the dashed line: success)")
    axes.set(xlabel="mean TRE before (mm)", ylabel="mean TRE after (mm)")


def _reliability(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    judged = calibrate(outcomes)
    title = "Confidence"
    if judged is not None:
        title += f": expected calibration error {judged.error:.2f}"
        for b in judged.bins:
            low, high = b.interval
            bars = [[max(b.right - low, 0)], [max(high - b.right, 0)]]
            axes.errorbar(b.confidence, b.right, bars, color=COLOURS[OURS], marker="o", capsize=3)
            axes.annotate(str(b.count), (b.confidence, b.right), (6, 4), textcoords="offset points")
    axes.set(xlim=(-0.05, 1.08), ylim=(-0.05, 1.08), title=title)  # counts beside the points
    axes.set(xlabel="confidence", ylabel=f"share within {RIGHT_MM:g} mm (95 % interval)")


def _predicted(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    known: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for o in own(outcomes):
        if o["predicted_tre_mm"] is not None and o["tre_mm"] is not None:
            known[o["accepted"]].append((o["predicted_tre_mm"], o["tre_mm"]))
    for accepted, (colour, marker) in ((True, ACCEPTED), (False, REFUSED)):
        if not known[accepted]:
            continue  # nothing that the legend could name
        values = np.maximum(known[accepted], LEAST_SHOWN_MM).T
        label = "accepted" if accepted else "refused"
        axes.plot(*values, marker, color=colour, label=label, alpha=0.6, markersize=4)
    _millimetres(axes, [mm for part in known.values() for pair in part for mm in pair])
    axes.set_title("Predicted error")
    axes.set(xlabel="predicted TRE (mm)", ylabel="true mean TRE (mm)")
    if any(known.values()):
        axes.legend(frameon=False)


def _millimetres(axes: Axes, values: Sequence[float]) -> None:
    """Equal logarithmic axes that hold all values, and the line where both are equal."""
    low = max(LEAST_SHOWN_MM, min(values, default=1.0)) / 1.3
    high = max(2.0, *values, 0.0) * 1.3
    ticks = [tick for tick in TICKS_MM if low < tick < high]
    axes.plot([low, high], [low, high], color="0.7", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for side in (axes.xaxis, axes.yaxis):
        side.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        side.set_ticks([], minor=True)
