"""The bundled case, from two images to a registered scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import figures
from .errors import InputError
from .estimation.target_error import target_errors
from .formats.atomic import write_json
from .formats.landmarks import read_landmark_pairs
from .formats.outputs import Stage, check_folder, together
from .formats.scene import files_of, write_scene
from .geometry.volume import Volume
from .models.patient import Model
from .registration.pipeline import register
from .registration.result import Registration
from .runtime.progress import silent
from .runtime.resources import resource

PREPARED = "Models/demo-patient.pt"
REPORT = "report.json"


@dataclass(frozen=True, eq=False)
class Demo:
    """Outcome of the demo.

    Attributes:
        result: the registration.
        before_mm, after_mm: ``[N]`` target registration errors; the latter None if refused
            without any transform.
        files: what was written, the scene last.
        seconds: in total, with reading and drawing.
    """

    result: Registration
    before_mm: torch.Tensor
    after_mm: torch.Tensor | None
    files: list[Path]
    seconds: float


def run(
    output: Path,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Demo:
    """Register the bundled case and leave transform, report, figures and scene in ``output``.

    The iUS was simulated from the MRI and misplaced by 15 mm and 15 degrees, so the truth is
    known. When the registration is refused, there is no transform and no scene.

    Args:
        output: folder, made when missing.
        device: where to compute.
        seed: of everything random.
        progress: called with the name of each stage.

    Raises:
        InputError: the folder cannot be written, or the installation lacks the case.
    """
    tell = progress or silent
    start = time.perf_counter()
    check_folder(output)
    tell("reading the sample case")
    case = resource("SampleData")
    mri, ius = (Volume.read(case / f"{name}.nii.gz").to(device) for name in ("MRI", "iUS"))
    landmarks = read_landmark_pairs(case / "landmarks.csv")
    result = register(mri, ius, _model().to(device), seed=seed, progress=tell)
    tell("figures and scene")
    with together() as stage:
        files = _write(stage, output, mri, ius, result)
    return Demo(
        result,
        target_errors(np.eye(4), *landmarks),
        None if result.matrix is None else target_errors(result.matrix, *landmarks),
        files,
        time.perf_counter() - start,
    )


def _model() -> Model:
    """The model prepared on this MRI; the general one if the installation lacks it."""
    try:
        return Model.load(resource(PREPARED))
    except InputError:
        return Model.load()


def _write(
    stage: Stage, output: Path, mri: Volume, ius: Volume, result: Registration
) -> list[Path]:
    files = [output / REPORT]
    write_json(result.report(), stage(files[0]))
    for name, figure in figures.of_registration(result, mri, ius).items():
        files.append(output / name)
        figures.save(figure, stage(files[-1]))
    if result and result.matrix is not None:
        scene = files_of(output)
        staged = [stage(path) for path in scene]
        fixed, moving, kept = result.drawn_points()
        write_scene(staged[0].parent, mri, ius, result.matrix, fixed[kept], moving[kept])
        files += scene
    return files
