"""Markdown tables of a benchmark's outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import calibration
from .calibration import RIGHT_MM, SUCCESS_MM, is_right, succeeded
from .cases import FOREIGN, SIMULATED
from .outcome import Outcome, OwnOutcome, own


def tables(outcomes: Sequence[Outcome]) -> str:
    """All tables: per MRI the methods side by side and ours in detail, then foreign pairs and the
    calibration of the trust."""
    parts = []
    for kind, mri in dict.fromkeys((o["kind"], o["mri"]) for o in outcomes):
        part = [o for o in outcomes if (o["kind"], o["mri"]) == (kind, mri)]
        if kind == FOREIGN:
            continue
        pairs = len(dict.fromkeys(o["ius"] for o in part))
        what = f"{pairs} simulated iUS" if kind == SIMULATED else part[0]["ius"]
        parts.append(f"## {mri}, {what}\n")
        parts.append(f"Ended within {SUCCESS_MM:g} mm:\n\n{success(part)}\n")
        parts.append(f"TRE, mean / median, mm:\n\n{errors(part)}\n")
        parts.append(f"Seconds of processor time (of the clock), mean:\n\n{seconds(part)}\n")
        ours = own(part)
        if ours:
            parts.append(f"CrossKEY in detail:\n\n{details(ours)}\n")
    strangers = own(o for o in outcomes if o["kind"] == FOREIGN)
    if strangers:
        parts.append(f"## Pairs that do not belong together\n\n{foreign(strangers)}\n")
    judged = calibration.calibrate(outcomes)
    if judged is not None:
        parts.append(f"## Trust\n\n{calibration.table(judged)}\n")
    return "\n".join(parts)


def success(outcomes: Sequence[Outcome]) -> str:
    """Methods by levels: how many end within `SUCCESS_MM`; a failure to register counts."""
    return _by_level(outcomes, lambda part: f"{sum(map(succeeded, part))} of {len(part)}")


def errors(outcomes: Sequence[Outcome]) -> str:
    """Methods by levels: mean and median TRE of all transforms, accepted or not."""

    def cell(part: Sequence[Outcome]) -> str:
        found = [o["tre_mm"] for o in part if o["tre_mm"] is not None]
        missing = f", {len(part) - len(found)} failed" if len(found) < len(part) else ""
        return f"{np.mean(found):.1f} / {np.median(found):.1f}{missing}" if found else "all failed"

    start = {o["level"]: [] for o in outcomes}
    for o in outcomes:
        start[o["level"]].append(o["start_tre_mm"])
    before = " | ".join(f"{np.mean(v):.1f} / {np.median(v):.1f}" for v in start.values())
    head, rule, *rows = _by_level(outcomes, cell).splitlines()
    return "\n".join([head, rule, f"| before | {before} |", *rows])


def seconds(outcomes: Sequence[Outcome]) -> str:
    """Methods by levels: mean processor time, and wall-clock time in brackets."""
    return _by_level(
        outcomes, lambda p: f"{_mean(p, 'processor_seconds'):.1f} ({_mean(p, 'seconds'):.1f})"
    )


def details(outcomes: Sequence[OwnOutcome]) -> str:
    """Our own method, one row per level. TRE over all starts, refused ones included."""
    rows = [
        "| start (mm / deg) | mean TRE before | mean TRE (± SD, median) | "
        f"within {RIGHT_MM:g} mm | precision 5 mm | matching score | refused | "
        "wrong but accepted | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for level in dict.fromkeys(o["level"] for o in outcomes):
        part = [o for o in outcomes if o["level"] == level]
        found = np.array([o["tre_mm"] for o in part if o["tre_mm"] is not None])
        right = np.array([is_right(o) for o in part])
        accepted = np.array([o["accepted"] for o in part])
        tre = "none found"
        if len(found):
            tre = f"{found.mean():.2f} ± {found.std():.2f} mm, {np.median(found):.2f} mm"
        rows.append(
            f"| {level} | {_mean(part, 'start_tre_mm'):.1f} mm | {tre} | "
            f"{right.sum()} of {len(part)} | {100 * _mean(part, 'precision'):.0f} % | "
            f"{100 * _mean(part, 'matching_score'):.1f} % | {(~accepted).sum()} | "
            f"{(accepted & ~right).sum()} | {_mean(part, 'processor_seconds'):.1f} |"
        )
    return "\n".join(rows)


def foreign(outcomes: Sequence[OwnOutcome]) -> str:
    """One row per MRI; every acceptance is false."""
    rows = ["| MRI | pairs | accepted | confidence, median | confidence, largest |"]
    rows.append("|---|---|---|---|---|")
    for name in dict.fromkeys(o["mri"] for o in outcomes):
        part = [o for o in outcomes if o["mri"] == name]
        confidence = [o["confidence"] for o in part]
        rows.append(
            f"| {name} | {len(part)} | {sum(o['accepted'] for o in part)} | "
            f"{np.median(confidence):.2f} | {max(confidence):.2f} |"
        )
    return "\n".join(rows)


def _by_level(outcomes: Sequence[Outcome], cell: Callable[[Sequence[Outcome]], str]) -> str:
    levels = list(dict.fromkeys(o["level"] for o in outcomes))
    lines = [f"| start (mm / deg) | {' | '.join(levels)} |", "|---" * (len(levels) + 1) + "|"]
    for method in dict.fromkeys(o["method"] for o in outcomes):
        own = [[o for o in outcomes if (o["method"], o["level"]) == (method, v)] for v in levels]
        lines.append(f"| {method} | {' | '.join(cell(p) if p else '' for p in own)} |")
    return "\n".join(lines)


def _mean(outcomes: Sequence[Outcome], key: str) -> float:
    return float(np.mean([o[key] for o in outcomes]))
