"""``crosskey landmark``: points of one image found in another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import LandmarkMethod
from .common import (
    DONE,
    Json,
    say,
    say_json,
)
from .groups import Machine, Reading

if TYPE_CHECKING:
    from ..landmarks.found import Landmarks

COLOUR = (0.55, 0.9, 0.35)


def landmark(
    reading: Reading,
    machine: Machine,
    from_image: Annotated[
        Path, typer.Option("--from", help="Image with the points: file or DICOM folder.")
    ],
    to_image: Annotated[
        Path, typer.Option("--to", help="Image to find them in: another time, contrast or patient.")
    ],
    points: Annotated[Path, typer.Option(help="Points in it: .mrk.json, .fcsv or .csv.")],
    output: Annotated[Path, typer.Option(help="Point list to write, .mrk.json.")],
    model: Annotated[
        Path | None, typer.Option(help="Universal embedding; the bundled one when missing.")
    ] = None,
    method: Annotated[
        LandmarkMethod,
        typer.Option(help="Fixed points around each point, or the nearest neighbour alone."),
    ] = "fixed_point",
    as_json: Json = False,
) -> int:
    """Find points of one image in another: landmarks, or lesions to follow."""
    from ..formats import outputs
    from ..formats.landmarks import read_markups, write_markups
    from ..formats.volumes import read_volume
    from ..landmarks.propagate import find_landmarks
    from ..models.universal import UniversalModel
    from ..runtime.progress import display

    outputs.check_file(output, (".mrk.json",))
    options = reading.options()
    place = machine.pick()
    start = time.perf_counter()
    with display() as shown:
        shown.stage("reading")
        given, labels = read_markups(points)
        here, there = (read_volume(path, options).to(place) for path in (from_image, to_image))
        loaded = UniversalModel.load(model).to(place)
        shown.stage("finding the points")
        found = find_landmarks(here, there, given, loaded, method=method)
        names = [label or str(n) for n, label in enumerate(labels, 1)]
        notes = [
            f"{word}, similarity {score:.2f}, spread {spread:.1f} mm"
            for word, score, spread in zip(
                found.found, found.scores.tolist(), found.spreads.tolist(), strict=True
            )
        ]
        write_markups(found.points, output, names, COLOUR, notes=notes)
    seconds = round(time.perf_counter() - start, 2)
    if as_json:
        figures = {"seconds": seconds, "device": str(place), "model": loaded.name}
        rows, pose = _figures(names, found), found.pose.report()
        say_json({"output": str(output), "points": rows, "pose": pose, **figures})
    else:
        for name, note in zip(names, notes, strict=True):
            say(f"{name:>20}  {note}")
        if not found.pose:
            say("The images do not tell clearly how they lie to each other; check every point.")
        say(f"{len(names)} points in {seconds:.1f} s\nwrote {output}")
    return DONE


def _figures(names: list[str], found: Landmarks) -> list[dict[str, Any]]:
    words = (found.found, found.why)
    columns = (found.points.tolist(), *words, found.scores.tolist(), found.spreads.tolist())
    return [
        {
            "label": name,
            "position_ras_mm": [round(x, 3) for x in point],
            "found": word,
            "why": why,
            "similarity": round(score, 4),
            "spread_mm": round(spread, 3),
        }
        for name, point, word, why, score, spread in zip(names, *columns, strict=True)
    ]
