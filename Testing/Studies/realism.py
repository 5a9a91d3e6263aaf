"""Hold simulated ultrasound against real: brightness, speckle, profile over depth.

python -m Testing.Studies.realism --real US [US ...] --mri MR [MR ...] [--mri MR2 ...]
    [--count N] [--seed S] [--figure out.png] [--output out.json] [--hide-real]

Each --mri names the contrasts of one patient. Real volumes held against each other, one against
all others, say how large a distance is no reproach.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from CrossKEYLib.errors import CrossKEYError, InputError
from CrossKEYLib.formats.atomic import check_writable, write_json
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.synthesis.anatomy import read_anatomy
from CrossKEYLib.synthesis.probe import Probe
from CrossKEYLib.synthesis.simulator import simulate

from .appearance import BINS, Appearance, appearance, beam_axes

LEAST_FILLED = 20_000  # mm^3 of field of view; a probe may be drawn that sees hardly any brain
LENGTHS = {
    "speckle along the beam (mm)": "along_mm",
    "speckle across the beam (mm)": "across_mm",
    "roughness": "roughness",
}


@dataclass(frozen=True)
class Row:
    """One measure. The three distances are in its own unit, smaller being nearer but for overlap.

    Attributes:
        measure: its name.
        real, simulated: (5th, 50th, 95th percentile) over the volumes; None for pure distances.
        pooled: distance between the mean over all simulated and that over all real volumes.
        one_simulated: median distance of one simulated volume from the mean real one.
        one_real: median distance of one real volume from the mean of the others.
    """

    measure: str
    real: tuple[float, float, float] | None
    simulated: tuple[float, float, float] | None
    pooled: float
    one_simulated: float
    one_real: float


def draw(
    patients: Sequence[Sequence[Volume]],
    count: int,
    generator: torch.Generator,
    spacing_mm: float = 1.0,
) -> list[tuple[Volume, np.ndarray]]:
    """Simulate ``count`` volumes, the patients in turn; with each, its true axes in RAS.

    Raises:
        InputError: a patient's MRI cannot be used, or shows too little brain.
    """
    anatomies = [read_anatomy(contrasts) for contrasts in patients]
    drawn: list[tuple[Volume, np.ndarray]] = []
    for _ in range(5 * count):
        anatomy = anatomies[len(drawn) % len(anatomies)]
        probe = Probe.draw(anatomy, generator)
        volume = simulate(anatomy, generator, probe=probe, spacing_mm=spacing_mm).volume
        if int((volume.array > 0).sum()) * spacing_mm**3 >= LEAST_FILLED:
            drawn.append((volume, probe.local_to_ras[:3, :3]))
        if len(drawn) == count:
            return drawn
    raise InputError("hardly any simulated view held enough brain; check that the MRI shows one")


def compare(real: Sequence[Appearance], simulated: Sequence[Appearance]) -> list[Row]:
    """Distances of simulated from real, beside those among the real ones.

    Raises:
        InputError: fewer than two real volumes, or no simulated one.
    """
    if len(real) < 2 or not simulated:
        raise InputError("expected at least two real and one simulated volume")
    rows = []
    for name, key in LENGTHS.items():
        a, b = ([getattr(x, key) for x in group] for group in (real, simulated))
        rows.append(_row(name, a, b, lambda x, y: float(abs(x - y)), _spread(a), _spread(b)))
    a, b = ([x.histogram for x in group] for group in (real, simulated))
    rows.append(_row("histogram, Wasserstein-1", a, b, histogram_distance))
    rows.append(_row("histogram, overlap", a, b, histogram_overlap))
    a, b = (list(_even([x.profile for x in group])) for group in (real, simulated))
    rows.append(_row("profile over depth, RMS", a, b, profile_distance))
    return rows


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 between two histograms of intensities in [0, 1]; 0 to 1."""
    centres = (np.arange(BINS) + 0.5) / BINS
    return float(wasserstein_distance(centres, centres, a, b))


def histogram_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share that two histograms have in common; 1 where they are equal."""
    return float(np.minimum(a, b).sum())


def profile_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference over the depths that both reach."""
    both = np.isfinite(a[: len(b)]) & np.isfinite(b[: len(a)])
    return float(np.sqrt(np.mean(np.square(a[: len(b)] - b[: len(a)])[both])))


def mean_profile(looks: Sequence[Appearance]) -> np.ndarray:
    """Mean over volumes at each depth, NaN beyond what half of them reach."""
    return _mean(_even([x.profile for x in looks]))


def _even(profiles: Sequence[np.ndarray]) -> np.ndarray:
    """Stacked, NaN where one is shorter than the longest."""
    longest = max(len(p) for p in profiles)
    pad = [np.pad(p, (0, longest - len(p)), constant_values=np.nan) for p in profiles]
    return np.stack(pad)


def _mean(values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where most is missing."""
    stack = np.asarray(values, float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # depths that no volume reaches
        mean = np.nanmean(stack, 0)
    return np.where(np.isfinite(stack).mean(0) >= 0.5, mean, np.nan)


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return float(low), float(middle), float(high)


def _row(name: str, real: list, simulated: list, distance, real_range=None, range_=None) -> Row:
    others = [real[:n] + real[n + 1 :] for n in range(len(real))]
    return Row(
        name,
        real_range,
        range_,
        pooled=distance(_mean(simulated), _mean(real)),
        one_simulated=float(np.median([distance(x, _mean(real)) for x in simulated])),
        one_real=float(
            np.median([distance(x, _mean(o)) for x, o in zip(real, others, strict=True)])
        ),
    )


def beam_errors_deg(drawn: Sequence[tuple[Volume, np.ndarray]]) -> list[float]:
    """Angle between the beam read off each simulated image and its true line, 0 to 90."""
    cosines = [abs(float(beam_axes(v)[:, 2] @ axes[:, 2])) for v, axes in drawn]
    return [float(np.degrees(np.arccos(min(c, 1.0)))) for c in cosines]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""

    def cell(spread: tuple[float, float, float] | None) -> str:
        return "" if spread is None else "{1:.2f} ({0:.2f} to {2:.2f})".format(*spread)

    lines = [
        "| measure | real: median (5 to 95 %) | simulated | all simulated against all real "
        "| one simulated against the real | one real against the others |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.measure} | {cell(r.real)} | {cell(r.simulated)} "
        f"| {r.pooled:.3f} | {r.one_simulated:.3f} | {r.one_real:.3f} |"
        for r in rows
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="realism", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--real", nargs="+", required=True, metavar="US", help="real iUS volumes, two at least")
    add("--mri", nargs="+", required=True, action="append", metavar="MR",
        help="contrasts of one patient; repeat for more patients")  # fmt: skip
    add("--count", type=int, default=24, help="simulated volumes")
    add("--seed", type=int, default=0)
    add("--spacing", type=float, default=1.0, help="resolution of simulation and measures, mm")
    add("--figure", type=Path, help="picture of slices and curves")
    add("--hide-real", action="store_true", help="no slices of real volumes in the figure")
    add("--output", type=Path, help="all numbers as JSON")
    return parser


def run(given: argparse.Namespace) -> None:
    """Measure, compare, print the table, write what was asked for."""
    for path in (given.figure, given.output):
        if path is not None:
            check_writable(path)
    real = [appearance(Volume.read(path), given.spacing) for path in given.real]
    patients = [[Volume.read(path) for path in paths] for paths in given.mri]
    generator = torch.Generator().manual_seed(given.seed)
    drawn = draw(patients, given.count, generator, given.spacing)
    simulated = [appearance(volume, given.spacing, axes) for volume, axes in drawn]
    rows, errors = compare(real, simulated), beam_errors_deg(drawn)
    print(table(rows))
    print(
        f"\nBeam read off the simulated images: {np.median(errors):.0f} degrees (median) off, "
        f"{np.mean(np.array(errors) < 20):.0%} within 20."
    )
    if given.figure is not None:
        from .realism_figure import write_figure  # matplotlib is slow to import

        # Slices of the first patient only, so that a figure can be made that shows no other.
        shown = simulated[:: len(patients)]
        write_figure(given.figure, real, simulated, [] if given.hide_real else real, shown,
                     given.spacing)  # fmt: skip
    if given.output is not None:
        record = {"rows": [asdict(row) for row in rows], "beam_errors_deg": errors}
        for name, looks in (("real", real), ("simulated", simulated)):
            record[name] = [{k: v for k, v in asdict(a).items() if k != "section"} for a in looks]
        write_json(record, given.output)


def main(arguments: list[str] | None = None) -> int:
    try:
        run(_parser().parse_args(arguments))
    except CrossKEYError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
