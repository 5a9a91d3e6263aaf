"""``crosskey keypoints`` and ``crosskey synthesize``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config import Modality
from .common import (
    DONE,
    Contrasts,
    Json,
    Seed,
    say,
    say_json,
)
from .groups import Machine, Reading

COLOURS: dict[Modality, tuple[float, float, float]] = {
    "mri": (0.21, 0.77, 0.94),
    "ius": (1.0, 0.69, 0.0),
}


def keypoints(
    reading: Reading,
    machine: Machine,
    image: Annotated[Path, typer.Option(help="MRI or ultrasound: file or DICOM folder.")],
    output: Annotated[Path, typer.Option(help="Point list to write, .mrk.json.")],
    modality: Annotated[
        Modality | None, typer.Option(help="mri keeps the points inside the brain.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Find SIFT3D keypoints and write them as a point list for 3D Slicer."""
    from ..formats import outputs
    from ..formats.landmarks import write_markups
    from ..formats.volumes import read_volume
    from ..geometry.brain import brain_mask
    from ..geometry.intensity import rescaled
    from ..keypoints.sift3d import detect
    from ..runtime.progress import display

    outputs.check_file(output, (".mrk.json",))
    place = machine.pick()
    start = time.perf_counter()
    with display() as shown:
        shown.stage("reading")
        volume = rescaled(read_volume(image, reading.options()).to(place))
        shown.stage("keypoints")
        mask = brain_mask(volume) if modality == "mri" else None
        found = detect(volume, mask=mask)
        write_markups(found, output, colour=COLOURS[modality or "mri"])
    seconds = round(time.perf_counter() - start, 2)
    if as_json:
        figures = {"n_keypoints": len(found), "seconds": seconds, "device": str(place)}
        say_json({"output": str(output), **figures})
    else:
        say(f"{len(found)} keypoints in {seconds:.1f} s\nwrote {output}")
    return DONE


def synthesize(
    reading: Reading,
    machine: Machine,
    mri: Contrasts,
    output: Annotated[Path, typer.Option(help="Folder for the volumes; made when missing.")],
    count: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 1,
    kind: Annotated[
        Literal["ius", "ct"],
        typer.Option(help="Ultrasound, or CT from a whole head (T1, the first MRI alone)."),
    ] = "ius",
    spacing: Annotated[
        float, typer.Option(help="Voxel size of ultrasound in mm.", min=0.3, max=2.0)
    ] = 0.75,
    seed: Seed = 0,
) -> int:
    """Simulate volumes from an MRI, in its world: synthetic_001.nii.gz and so on."""
    import torch

    from ..evaluation.cases import worth_registering
    from ..formats import outputs
    from ..formats.volumes import read_volume
    from ..runtime.progress import display
    from ..synthesis.anatomy import read_anatomy
    from ..synthesis.pseudo_ct import pseudo_ct
    from ..synthesis.simulator import simulate

    outputs.check_folder(output)
    place = machine.pick()
    options = reading.options()
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    with display() as shown, outputs.together() as stage:
        shown.stage("anatomy")
        images = [read_volume(path, options).to(place) for path in mri]
        anatomy = read_anatomy(images)
        ready = time.perf_counter()
        for n in range(1, count + 1):
            shown.stage(f"volume {n} of {count}")
            if kind == "ct":
                made = pseudo_ct(images[0], generator, anatomy)
            else:
                made = worth_registering(
                    lambda: simulate(anatomy, generator, spacing_mm=spacing)
                ).volume
            made.write(stage(output / f"synthetic_{n:03d}.nii.gz"))
    end = time.perf_counter()
    say(f"anatomy {ready - start:.1f} s, {count} volumes {end - ready:.1f} s\nwrote {output}")
    return DONE
