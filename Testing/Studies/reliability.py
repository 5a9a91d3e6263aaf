"""Does the confidence mean what it says, over several benchmarks together?

    python -m Testing.Studies.reliability OUT/outcomes.json [OUT2/outcomes.json ...] \
        --figure reliability.png [--anew]

Pools what `crosskey benchmark` wrote for real, simulated, emptied, mirrored and foreign pairs: one
curve of reliability, the calibration error, both ways to be wrong, and the predicted against the
true error. With ``--anew`` all are judged by the present model of the trust, where they were
registered under another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from CrossKEYLib.evaluation import benchmark_figure, calibration
from CrossKEYLib.evaluation.benchmark import OURS, read_outcomes
from CrossKEYLib.evaluation.cases import EMPTIED, FOREIGN, MIRRORED
from CrossKEYLib.formats.atomic import whole
from CrossKEYLib.trust.confidence import TrustModel


def table(outcomes: Sequence[dict]) -> str:
    """Markdown: one line for each kind of pair, then the pooled trust; our outcomes alone."""
    rows = [
        "| pairs | registered | right | accepted | of the right | of the wrong | confidence, "
        "smallest of the right | largest of the wrong |",
        "|---" * 8 + "|",
    ]
    for kind in dict.fromkeys(map(_kind, outcomes)):
        part = [o for o in outcomes if _kind(o) == kind]
        right = [o for o in part if calibration.is_right(o)]
        wrong = [o for o in part if not calibration.is_right(o)]
        kept = [sum(o["accepted"] for o in some) for some in (part, right, wrong)]
        least = min((o["confidence"] for o in right), default=None)
        most = max((o["confidence"] for o in wrong), default=None)
        rows.append(
            f"| {kind} | {len(part)} | {len(right)} | {kept[0]} | {kept[1]} of {len(right)} | "
            f"{kept[2]} of {len(wrong)} | {_number(least)} | {_number(most)} |"
        )
    judged = calibration.calibrate(outcomes)
    return "\n".join(rows) + ("" if judged is None else f"\n\n{calibration.table(judged)}")


def _kind(outcome: dict) -> str:
    if outcome["kind"] == FOREIGN and EMPTIED in outcome["ius"]:
        return "simulated, that side of the head emptied"
    if outcome["kind"] == FOREIGN and MIRRORED in outcome["mri"]:
        return "real, the MRI mirrored"
    return str(outcome["kind"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="reliability", description=__doc__)
    parser.add_argument("outcomes", type=Path, nargs="+", help="outcomes.json of benchmarks")
    parser.add_argument("--figure", type=Path, help="picture to write, .png")
    parser.add_argument("--anew", action="store_true", help="judge by the present model")
    args = parser.parse_args(arguments)
    ours = _ours(args.outcomes)
    if args.anew:
        ours = [calibration.judged_anew(o, TrustModel.load()) for o in ours]
    if args.figure is not None:
        with whole(args.figure) as temporary:
            benchmark_figure.calibration(ours).savefig(temporary, dpi=130)
    print(table(ours))


def _ours(files: Sequence[Path]) -> list[dict]:
    outcomes = [o for file in files for o in read_outcomes(file)["outcomes"]]
    return [o for o in outcomes if o["method"] == OURS]


if __name__ == "__main__":
    main()
