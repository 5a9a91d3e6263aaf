"""Evidence of registrations that are known to be right or wrong, to calibrate the trust with.

    python -m Testing.Studies.trust_pairs --data ../shared/data \
        --list training --list validation --output pairs.jsonl [--rounds 3] [--orientations]

One line of JSON for every transform that was judged: all numbers of the trust, the true error over
the field of view, what kind of pair it is, whose head. A run goes on where it stopped; pairs of
another model are made anew. With ``--orientations`` registration looks in all orientations where it
finds nothing that it trusts, as a person's registration does.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from CrossKEYLib.config import RegisterConfig
from CrossKEYLib.errors import CrossKEYError
from CrossKEYLib.evaluation.benchmark import settings_of
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model

from . import trust_images as images_of
from .trust_evidence import OWN, Shown, Writer
from .trust_images import People, Real, Sweep, Truth

SPOILT = ("same place", "emptied", "speckle", "cropped away")  # one a visit, in turn
Pairs = dict[str, tuple[str, Volume, Truth | None, str | None]]  # kind, iUS, truth, whose iUS


class Schedule:
    """Visits to one MRI after the other; round by round, so that a run cut short knows all heads.

    Args:
        people: heads and real ultrasound.
        model, config: of the registrations.
        writer: knows what is done, and writes what is new.
    """

    def __init__(
        self, people: People, model: Model, config: RegisterConfig, writer: Writer
    ) -> None:
        self.people, self.model, self.config, self.writer = people, model, config, writer
        self.heads = list(people.heads)
        self.sweep = lru_cache(maxsize=6)(self._sweep)

    def visits(self, rounds: int) -> Iterator[Callable[[], None]]:
        for turn in range(rounds):
            for real in self.people.reals:
                for path in real.mri:
                    yield partial(self.real, real, path, turn)
            for number in range(len(self.heads)):
                yield partial(self.head, number, turn)

    def head(self, number: int, turn: int) -> None:
        """All pairs with one degraded MRI of a head."""
        head = self.heads[number]
        generator = generator_of(f"{head}|{turn}")
        contrast, first = self.sweep(number, turn, 0)
        contrast_shown, whole = images_of.shown_mri(self.people.heads[head], contrast, generator)
        mri, cropped = images_of.degraded(whole, first.ius, generator)
        named = {"head": head, "turn": turn, "to": contrast_shown, "cropped": cropped}
        pairs: Pairs = {}
        pairs["own 0"] = (OWN, first.ius, first.truth, None)
        second = self.sweep(number, turn, 1)[1]
        again: Pairs = {"own 1": (OWN, second.ius, second.truth, None)}
        if not cropped:
            pairs |= again
        self._add_strangers(pairs, number, turn)
        if (turn + number) % 2 == 0:
            pairs["mirrored"] = ("mirrored", images_of.reflected(first.ius), None, None)
        spoilt = SPOILT[(turn + number) % len(SPOILT)]
        if spoilt == "speckle":
            pairs[spoilt] = (spoilt, images_of.speckle_only(first.ius, generator), None, None)
        self._register(mri, pairs, named)
        if cropped:
            around, boxed = images_of.degraded(whole, second.ius, generator)
            self._register(around, again, {**named, "cropped": boxed})
        if spoilt != "speckle":
            self._spoilt(spoilt, number, turn, whole, named)

    def real(self, real: Real, path: Path, turn: int) -> None:
        """All pairs with the MRI of a real patient."""
        pair = images_of.real_images(real, path)
        assert pair.targets_fixed is not None
        assert pair.targets_moving is not None
        truth = Truth(pair.targets_moving, pair.targets_fixed)
        pairs: Pairs = {}
        pairs["own"] = (OWN, pair.ius, truth, None)
        pairs["mirrored"] = ("mirrored", images_of.reflected(pair.ius), None, None)
        number = self.people.reals.index(real)
        self._add_strangers(pairs, number, turn, real.name)
        named = {"head": real.name, "turn": turn, "to": path.name, "cropped": None}
        self._register(pair.mri, pairs, named)

    def _add_strangers(self, pairs: Pairs, number: int, turn: int, own: str = "") -> None:
        """Ultrasound of other people: two real ones, and one simulated at the last visit."""
        reals = [real for real in self.people.reals if real.name != own]
        for n in range(min(2, len(reals))):
            other = reals[(2 * (turn * len(self.heads) + number) + n) % len(reals)]
            pairs[f"foreign {n}"] = ("real foreign", images_of.read(other.ius), None, other.name)
        before = (number - 1) % len(self.heads)
        sweep = self.sweep(before, turn, 0)[1]
        pairs["simulated"] = ("simulated foreign", sweep.ius, None, self.heads[before])

    def _register(
        self,
        mri: Volume,
        pairs: Pairs,
        named: dict[str, Any],
    ) -> None:
        """Register what is not done yet."""
        shown = None
        for key, (kind, ius, truth, other) in pairs.items():
            name = f"{named['head']}|{named['to']}|{key}|{named['turn']}"
            if name in self.writer.done:
                continue
            try:
                shown = shown or Shown.of(mri, self.model, self.config)
                generator = generator_of(name)
                seen = ius if kind == "real foreign" else images_of.softened(ius, generator)
                rows = shown.registered(seen, truth, kind, {**named, "other": other}, generator)
            except CrossKEYError as error:
                rows = []
                print(f"{name}: {error}", flush=True)
            # A pair without a transform still was tried.
            rows = rows or [{**named, "kind": kind, "other": other, "trust": None}]
            self.writer.write([{"pair": name, **row} for row in rows])

    def _spoilt(
        self, kind: str, number: int, turn: int, whole: Volume, named: dict[str, Any]
    ) -> None:
        """A pair whose MRI does not show what the ultrasound shows."""
        own = self.sweep(number, turn, 0)[1]
        other = None
        if kind == "same place":
            before = (number - 1) % len(self.heads)
            contrast, own = self.sweep(before, turn, 0)
            other = self.heads[before]
            there = images_of.read(self.people.heads[other][contrast])
            mri = images_of.same_place(there, whole, own)
        elif kind == "emptied":
            mri = images_of.emptied_images(whole, own.ius).mri
        else:
            mri = images_of.cropped_away(whole, own.ius)
        mri, _ = images_of.degraded(mri, None, generator_of(f"{named['head']}|{turn}|{kind}"))
        self._register(mri, {kind: (kind, own.ius, None, other)}, named)

    def _sweep(self, number: int, turn: int, n: int) -> tuple[str, Sweep]:
        head = self.heads[number]
        return images_of.sweep_of(self.people.heads[head], generator_of(f"{head}|{turn}|{n}"))


def generator_of(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of heads, resect, ...")
    parser.add_argument(
        "--colin27", type=Path, default=Path("/usr/share/mricron/templates/ch2.nii.gz")
    )
    parser.add_argument("--mni152", type=Path, default=Path("MNI152_T1.nii.gz"))
    parser.add_argument("--list", action="append", required=True, dest="lists")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--output", type=Path, required=True, help=".jsonl, appended to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--orientations", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e9, help="then no new pair is begun")
    args = parser.parse_args()
    torch.set_num_threads(1)
    extra = {"colin27": args.colin27, "mni152": args.mni152}
    people = People(tuple(args.lists), args.data, extra)
    for name in people.missing:
        print(f"{name}: no images found; left out", flush=True)
    model = Model.load(args.model)
    config = RegisterConfig(search_rotations=args.orientations)
    weights = settings_of(["crosskey"], model)["crosskey"]["weights"]
    writer = Writer(args.output, {"weights": weights, "orientations": args.orientations})
    end = time.monotonic() + 60 * args.minutes
    for visit in Schedule(people, model, config, writer).visits(args.rounds):
        if time.monotonic() > end:
            break
        visit()


if __name__ == "__main__":
    main()
