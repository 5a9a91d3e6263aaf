"""How long a registration takes: cold, warm, refused, from anywhere, and beside a busy process.

    python -m Testing.Studies.speed --mri MRI --ius IUS --output FOLDER \
        [--head HEAD] [--threads 1 --threads 2] [--part cold --part published]

Everything is measured from outside, as a person would meet it: the command ``crosskey register``
from its start to its end (cold), and the panel's worker from a request to its result (warm, once it
has seen the MRI). A pair that is refused is the ultrasound with the MRI mirrored left to right: of
the same size, and nowhere to be found. "Beside" means beside another process of the same kind that
registers without pause. Ratios are of one run on one machine, which is named.

A checkpoint of the published network, with random weights, takes part: what it finds means nothing,
how long it takes does. With ``--head`` an ultrasound simulated from a whole head is registered to
it as well. ``--part`` measures some of this alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from CrossKEYLib.config import ResNetConfig
from CrossKEYLib.descriptors.resnet import ResNetDescriptor
from CrossKEYLib.evaluation.cases import mirrored, simulated
from CrossKEYLib.evaluation.misplacements import ARBITRARY, start_of
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.formats.outputs import check_folder, together
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.synthesis.anatomy import read_anatomy

from .measuring import AskedWorker, busy, machine, measured

NEAR = "10 / 10"  # mm, degrees
REPEATS = 3
COLD, WARM, FAR, REFUSED, PUBLISHED = "cold", "warm", "arbitrary", "refused", "published"
PARTS = (COLD, "worker", "beside", PUBLISHED)


@dataclass(frozen=True)
class Files:
    """Written for one case: a pair, its iUS near and anywhere, and its MRI mirrored."""

    mri: Path
    near: list[Path]
    far: list[Path]
    mirrored: Path


@dataclass(frozen=True)
class Row:
    """Median over its repeats, of one kind of registration."""

    case: str
    kind: str
    threads: int
    beside: bool
    seconds: float
    processor_seconds: float | None
    peak_mb: float | None
    accepted: int
    repeats: int


def write_files(mri: Volume, ius: Volume, folder: Path, repeats: int = REPEATS) -> Files:
    """The images of one case, each file in a world of its own."""
    folder.mkdir(parents=True, exist_ok=True)

    def written(volume: Volume, name: str) -> Path:
        volume.write(folder / name)  # not compressed: what is measured is registration
        return folder / name

    def moved(level: str) -> list[Path]:
        starts = [start_of(level, seed, ius.centre_ras) for seed in range(repeats)]
        name = "far" if level == ARBITRARY else "near"
        return [written(ius.moved(start), f"{name}{i}.nii") for i, start in enumerate(starts)]

    return Files(
        written(mri, "mri.nii"),
        moved(NEAR),
        moved(ARBITRARY),
        written(mirrored(mri), "mirrored.nii"),
    )


def command(mri: Path, ius: Path, output: Path, model: Path | None = None) -> list[str]:
    named = [] if model is None else ["--model", str(model)]
    pair = ["--mri", str(mri), "--ius", str(ius), "--output", str(output)]
    return [sys.executable, "-m", "CrossKEYLib", "register", *pair, *named]


def cold(case: str, files: Files, threads: int, beside: bool = False) -> Row:
    """The command, from its start to its end."""
    output = files.mri.parent / "out.tfm"
    done = [measured(command(files.mri, near, output), threads) for near in files.near]
    return Row(
        case,
        COLD,
        threads,
        beside,
        statistics.median(one.seconds for one in done),
        statistics.median(one.processor_seconds for one in done),
        max(one.peak_mb for one in done),
        sum(one.status == 0 for one in done),
        len(done),
    )


def warm(
    case: str,
    files: Files,
    threads: int,
    kinds: Sequence[str] = (WARM, FAR, REFUSED),
    beside: bool = False,
    start: Callable[[int], AskedWorker] = AskedWorker,
) -> list[Row]:
    """The worker, once it has seen the MRI; its memory is told with the last row."""
    rows: list[Row] = []
    asked = {
        WARM: [(files.mri, near) for near in files.near],
        FAR: [(files.mri, far) for far in files.far],
        REFUSED: [(files.mirrored, near) for near in files.near],
    }
    seen: Path | None = None
    with start(threads) as worker:
        for kind in kinds:
            times, accepted = [], 0
            for mri, ius in asked[kind]:
                if mri != seen:
                    worker.register(mri, ius)
                    seen = mri
                seconds, answer = worker.register(mri, ius)
                times.append(seconds)
                accepted += bool(answer["accepted"])
            seconds = statistics.median(times)
            rows.append(Row(case, kind, threads, beside, seconds, None, None, accepted, len(times)))
        peak = worker.close().peak_mb
    return [*rows[:-1], Row(**{**vars(rows[-1]), "peak_mb": peak})]


def beside(case: str, files: Files, threads: int) -> list[Row]:
    """The command beside the command, and the worker beside a worker."""
    other = command(files.mri, files.near[0], files.mri.parent / "other.tfm")
    with busy(lambda: measured(other, threads)):
        rows = [cold(case, files, threads, beside=True)]
    with AskedWorker(threads) as worker:
        worker.register(files.mri, files.near[0])
        with busy(lambda: worker.register(files.mri, files.near[0])):
            rows += warm(case, files, threads, [WARM], beside=True)
    return rows


def published(case: str, files: Files, threads: int) -> Row:
    """The command with a checkpoint of the published network, random weights."""
    checkpoint = files.mri.parent / "published.ckpt"
    network = ResNetDescriptor(ResNetConfig(), torch.Generator().manual_seed(0))
    torch.save({"state_dict": network.state_dict()}, checkpoint)
    output = files.mri.parent / "out.tfm"
    done = measured(command(files.mri, files.near[0], output, checkpoint), threads)
    figures = (done.seconds, done.processor_seconds, done.peak_mb, int(done.status == 0))
    return Row(case, PUBLISHED, threads, False, *figures, 1)


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """What is asked of the speed, as ratios of medians in this run."""
    found = {(r.case, r.kind, r.threads, r.beside): r.seconds for r in rows}
    told: dict[str, float] = {}
    for (case, kind, threads, crowded), seconds in found.items():
        name = f"{case}, {threads} threads: "
        alone = found.get((case, kind, threads, False))
        accepted = found.get((case, WARM, threads, False))
        if crowded and alone:
            told[f"{name}{kind} beside a busy process / alone"] = seconds / alone
        elif kind in (FAR, REFUSED) and accepted:
            told[f"{name}{kind} / accepted"] = seconds / accepted
    return told


def table(rows: Sequence[Row], named: dict[str, Any]) -> str:
    """Markdown: the machine, each median, and the ratios."""
    lines = [
        ", ".join(f"{key} {value}" for key, value in named.items()),
        "",
        "| case | registration | threads | beside | seconds | processor seconds | peak memory "
        "| accepted |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        used = "" if row.processor_seconds is None else f"{row.processor_seconds:.1f}"
        peak = "" if row.peak_mb is None else f"{row.peak_mb / 1024:.2f} GB"
        crowd = "busy" if row.beside else "alone"
        lines.append(
            f"| {row.case} | {row.kind} | {row.threads} | {crowd} | {row.seconds:.1f} | {used} "
            f"| {peak} | {row.accepted} of {row.repeats} |"
        )
    lines += ["", "| ratio | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in ratios(rows).items()]
    return "\n".join(lines)


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> list[Row]:
    """All rows, each told when it is there."""
    rows: list[Row] = []

    def told(*more: Row) -> None:
        rows.extend(more)
        for row in more:
            crowd = ", beside a busy process" if row.beside else ""
            say(f"{row.case}, {row.kind}, {row.threads} threads{crowd}: {row.seconds:.1f} s")

    with tempfile.TemporaryDirectory() as name:
        mri, ius = Volume.read(args.mri), Volume.read(args.ius)
        files, case = write_files(mri, ius, Path(name) / "pair", args.repeats), "pair"
        for threads in args.threads:
            if COLD in args.part:
                told(cold(case, files, threads))
            if "worker" in args.part:
                told(*warm(case, files, threads))
        if "beside" in args.part:
            if COLD not in args.part:  # a ratio is of one run
                told(cold(case, files, args.threads[-1]))
            if "worker" not in args.part:
                told(*warm(case, files, args.threads[-1], [WARM]))
            told(*beside(case, files, args.threads[-1]))
        if PUBLISHED in args.part:
            told(published(case, files, args.threads[-1]))
        if args.head is not None:
            head = Volume.read(args.head)
            made = simulated(head, read_anatomy([head]), (0, 0)).ius
            files = write_files(head, made, Path(name) / "head", args.repeats)
            told(cold("whole head", files, args.threads[-1]))
            told(*warm("whole head", files, args.threads[-1], (WARM, REFUSED)))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mri", type=Path, required=True)
    parser.add_argument("--ius", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--head", type=Path, help="a whole head, MRI")
    parser.add_argument("--threads", type=int, action="append", help="repeat; 1 and 2 if missing")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--part", choices=PARTS, action="append", help="repeat; all if missing")
    args = parser.parse_args(arguments)
    args.threads, args.part = args.threads or [1, 2], args.part or PARTS
    check_folder(args.output)
    rows, named = run(args), machine()
    args.output.mkdir(parents=True, exist_ok=True)
    text = table(rows, named)
    with together() as stage:
        stage(args.output / "speed.md").write_text(text + "\n", encoding="utf-8")
        content = {"machine": named, "rows": [vars(r) for r in rows], "ratios": ratios(rows)}
        write_json(content, stage(args.output / "speed.json"))
    print(text)


if __name__ == "__main__":
    main()
