"""The pairs of a benchmark: real ones with landmarks, simulated ones, and foreign ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..formats.landmarks import read_landmark_pairs
from ..formats.volumes import NIFTI, TEXT_HEADER
from ..geometry.volume import Grid, Volume
from ..synthesis.anatomy import Anatomy, read_anatomy
from ..synthesis.deformation import Deformation
from ..synthesis.probe import Probe
from ..synthesis.simulator import Simulation, simulate
from ..synthesis.style import Style
from ..trust.plausibility import SMALLEST_IUS_ML, filled_ml

REAL, SIMULATED, FOREIGN = "real", "simulated", "foreign"
EMPTIED = "emptied"  # in the name of a simulated iUS whose side of the head was
MIRRORED = "mirrored"  # in the name of an MRI
DEFORMED = "deformed"  # in the name of an MRI, against which the simulated iUS is
IUS_NAME = re.compile(r"(^|[_-])i?us([_.-])", re.IGNORECASE)  # Case24_US_before.nii.gz, ius.nrrd
TARGETS = 500  # points in the field of view at which the error of a simulated pair is measured
SPACING_MM = 0.5  # of simulated iUS, about that of real ones
EMPTIED_MM = 5.0  # around the ultrasound, removed from the MRI as well
MOST_DRAWS = 20  # a random probe may see almost nothing


@dataclass(frozen=True, eq=False)
class Images:
    """One pair before it is misplaced.

    Attributes:
        mri, ius: fixed and moving.
        targets_fixed, targets_moving: ``[N, 3]`` RAS mm, corresponding points; None where there
            are none.
    """

    mri: Volume
    ius: Volume
    targets_fixed: torch.Tensor | None
    targets_moving: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Case:
    """A pair by name; ``load`` reads or simulates it when it is needed.

    Attributes:
        kind: `REAL`, `SIMULATED` or `FOREIGN`.
        mri, ius: names, for tables.
    """

    kind: str
    mri: str
    ius: str
    load: Callable[[], Images]


def find_case(folder: Path) -> tuple[list[Path], Path, list[Path]]:
    """MRI contrasts, iUS and landmark files of a folder that holds one patient.

    The iUS is the volume with "US" or "iUS" as a word of its name; the other volumes are MRI.

    Raises:
        InputError: not one iUS, no MRI or no landmarks.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the path")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    volumes = [path for path in files if path.name.lower().endswith(NIFTI + TEXT_HEADER)]
    ius = [path for path in volumes if IUS_NAME.search(path.name)]
    mri = [path for path in volumes if path not in ius]
    landmarks = [p for p in files if p.name.lower().endswith((".tag", ".csv", ".mrk.json"))]
    if len(ius) != 1 or not mri or not landmarks:
        raise InputError(
            f"{folder}: expected MRI, one iUS (named ..._US_...) and landmarks, found {len(mri)}, "
            f"{len(ius)} and {len(landmarks)}; give --mri, --ius and --landmarks in its place"
        )
    return mri, ius[0], landmarks


def real_cases(mri: Sequence[Path], ius: Path, landmarks: Sequence[Path]) -> list[Case]:
    """One case per MRI contrast of a patient."""
    pairs = read_landmark_pairs(landmarks)

    def loader(path: Path) -> Callable[[], Images]:
        return lambda: Images(_read(path), _read(ius), *pairs)

    return [Case(REAL, name, ius.name, loader(path)) for path, name in names_of(mri)]


def foreign_cases(mri: Sequence[Path], ius: Sequence[Path]) -> list[Case]:
    """Every iUS with every MRI; none may belong together."""

    def loader(a: Path, b: Path) -> Callable[[], Images]:
        return lambda: Images(_read(a), _read(b), None, None)

    return [
        Case(FOREIGN, of_a, of_b, loader(a, b))
        for a, of_a in names_of(mri)
        for b, of_b in names_of(ius)
    ]


def simulated_cases(mri: Sequence[Path], count: int, seed: int = 0) -> list[Case]:
    """``count`` probe sites on every MRI, each in a style of its own; the pose is known exactly."""

    def loader(path: Path, site: int) -> Callable[[], Images]:
        return lambda: simulated(_read(path), _anatomy(path), (seed, site))

    return [
        Case(SIMULATED, name, f"site {site}", loader(path, site))
        for path, name in names_of(mri)
        for site in range(count)
    ]


def deformed_cases(mri: Sequence[Path], count: int, seed: int = 0) -> list[Case]:
    """As `simulated_cases`, with the ultrasound deformed against the MRI. No rigid transform is
    exact, and the best rigid fit to the deformation gives the smallest possible error."""

    def loader(path: Path, site: int) -> Callable[[], Images]:
        return lambda: simulated(_read(path), _anatomy(path), (seed, site), deformed=True)

    return [
        Case(SIMULATED, f"{name}, {DEFORMED}", f"site {site}", loader(path, site))
        for path, name in names_of(mri)
        for site in range(count)
    ]


def mirrored_cases(mri: Sequence[Path], ius: Sequence[Path]) -> list[Case]:
    """Every iUS with every MRI mirrored left to right, also with that of the same patient: similar
    anatomy lies on the wrong side."""
    return [
        _changed(case, _mirrored_mri, mri=f"{case.mri}, {MIRRORED}")
        for case in foreign_cases(mri, ius)
    ]


def absent_cases(mri: Sequence[Path], count: int, seed: int = 0) -> list[Case]:
    """The sites of `simulated_cases`, with their side of the head removed from the MRI: the anatomy
    in the ultrasound is missing, and similar anatomy remains on the other side."""
    return [
        _changed(case, without_its_side, kind=FOREIGN, ius=f"{case.ius}, {EMPTIED}")
        for case in simulated_cases(mri, count, seed)
    ]


def names_of(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each path with a unique short name: that of the file, preceded by its folder's if two files
    have the same name (T1.nii.gz of two patients)."""
    names = [path.name for path in paths]
    full = [f"{path.resolve().parent.name}/{path.name}" for path in paths]
    return [
        (path, long if names.count(short) > 1 else short)
        for path, short, long in zip(paths, names, full, strict=True)
    ]


def simulated(
    mri: Volume,
    anatomy: Anatomy,
    seed: tuple[int, int],
    spacing_mm: float = SPACING_MM,
    deformed: bool = False,
) -> Images:
    """An iUS simulated in the coordinate system of its MRI: the true transform is the identity,
    up to the deformation.

    Spots and tumours that training draws into both images are left out: the MRI must stay as it is.
    """
    generator = torch.Generator().manual_seed(1000 * seed[0] + seed[1])

    def draw() -> Simulation:
        probe, style = Probe.draw(anatomy, generator), Style.draw(generator)
        style = replace(style, blob_count=0, tumour_count=0)
        deformation = Deformation.draw(probe, generator) if deformed else None
        return simulate(
            anatomy,
            generator,
            probe=probe,
            style=style,
            deformation=deformation,
            spacing_mm=spacing_mm,
        )

    simulation = worth_registering(draw)
    made = simulation.volume
    inside = (made.array > 0).nonzero()
    chosen = inside[torch.randint(len(inside), (TARGETS,), generator=generator).to(inside.device)]
    targets = made.points_ras(chosen.float())
    return Images(mri, made, simulation.to_mri(targets), targets)


def worth_registering(
    draw: Callable[[], Simulation], least_ml: float = SMALLEST_IUS_ML
) -> Simulation:
    """The first of `MOST_DRAWS` simulations whose field of view is large enough, else the last."""
    simulation = draw()
    for _ in range(1, MOST_DRAWS):
        if filled_ml(simulation.volume) >= least_ml:
            break
        simulation = draw()
    return simulation


def mirrored(mri: Volume) -> Volume:
    """The MRI mirrored along the axis of its grid that runs left to right."""
    axis = int(np.abs(mri.ijk_to_ras[0, :3]).argmax())
    return mri.replaced(mri.array.flip(2 - axis))


def without_its_side(images: Images) -> Images:
    """The MRI set to zero on the ultrasound's side of a plane. The plane is perpendicular to the
    line from the middle of the MRI's content to the ultrasound, and all of the ultrasound lies
    behind it, so that nothing corresponds."""
    mri, shown = images.mri, images.ius.points_ras((images.ius.array > 0).nonzero().float())
    middle = mri.points_ras((mri.array > 0).nonzero().float()).mean(0)
    way = F.normalize(shown.mean(0) - middle, dim=0)
    emptied = Grid.of(mri).points(mri.device) @ way > (shown @ way).amin() - EMPTIED_MM
    left = mri.replaced(torch.where(emptied, 0, mri.array))
    return Images(left, images.ius, None, None)


def _changed(case: Case, change: Callable[[Images], Images], **names: str) -> Case:
    """A case of other images, made from its own when they are loaded, under other names."""
    return replace(case, load=lambda: change(case.load()), **names)


def _mirrored_mri(images: Images) -> Images:
    return replace(images, mri=mirrored(images.mri))


@lru_cache(maxsize=4)
def _read(path: Path) -> Volume:
    """Cases in a row share their MRI."""
    return Volume.read(path)


@lru_cache(maxsize=4)
def _anatomy(path: Path) -> Anatomy:
    return read_anatomy([_read(path)])
