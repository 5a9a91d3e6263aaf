"""Image pairs that do and do not belong together, for the calibration of the trust.

Pairs that belong together are made from MRI alone: ultrasound simulated at a random place of the
head, deformed against the MRI, which is shown in another contrast and degraded as clinical images
are. Pairs that do not belong together are real or simulated ultrasound of other people, and images
that were mirrored, emptied, cropped, or hold nothing but speckle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from CrossKEYLib.config import read_yaml
from CrossKEYLib.evaluation.cases import Images, without_its_side, worth_registering
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import Anatomy, read_anatomy
from CrossKEYLib.synthesis.deformation import Deformation
from CrossKEYLib.synthesis.probe import Probe
from CrossKEYLib.synthesis.simulator import Simulation, simulate
from CrossKEYLib.synthesis.style import Style

PEOPLE = Path(__file__).resolve().parents[2] / "Resources" / "Configs" / "people.yaml"
CONTRASTS = ("T1", "T1POST", "T2", "FLAIR")
TARGETS = 500  # places in the field of view where the error is measured
BOX_MM = 80.0  # edge of a crop that must not show what the ultrasound shows
DEFORMED = 0.85  # share of the sweeps
BOXED = 0.75  # share of the MRI that are cropped to the ultrasound; such pairs take least time
WIDEST_MM = 25.0  # of the margin around the ultrasound that is kept


@dataclass(frozen=True, eq=False)
class Truth:
    """Where what the ultrasound shows lies: ``[N, 3]`` RAS mm in its own world and the MRI's."""

    moving: torch.Tensor
    fixed: torch.Tensor


@dataclass(frozen=True, eq=False)
class Sweep:
    """Ultrasound simulated in a head, in the head's world but for the deformation."""

    ius: Volume
    truth: Truth


@dataclass(frozen=True, eq=False)
class Real:
    """A real patient: ultrasound, and for some MRI and landmarks."""

    name: str
    ius: Path
    mri: tuple[Path, ...] = ()
    landmarks: Path | None = None


class People:
    """Heads and real ultrasound of one list of ``people.yaml``, found under a folder of data.

    Args:
        lists: of "training", "validation" and "test".
        data: holds ``heads/<id>``, ``open_ms/<id>``, ``remind022`` and ``resect``.
        extra: files of heads that ship with other software, by id.
    """

    def __init__(self, lists: tuple[str, ...], data: Path, extra: dict[str, Path]) -> None:
        listed = read_yaml(PEOPLE)
        names = [name for one in lists for name in listed["heads"][one]]
        found = {name: _contrasts(name, data, extra) for name in names}
        self.heads = {name: files for name, files in found.items() if files}
        self.missing = [name for name, files in found.items() if not files]
        # No ultrasound is in the training list; what validates also serves as foreign there.
        sweeps = [name for one in lists for name in listed["ultrasound"].get(one, [])]
        self.reals = [_real(name, data / "resect") for name in sweeps]


def _contrasts(name: str, data: Path, extra: dict[str, Path]) -> dict[str, Path]:
    """Files of a head by contrast; empty when there are none."""
    if name in extra:
        return {"T1": extra[name]} if extra[name].exists() else {}
    if name == "remind022":
        folder = data / name
        named = {
            "T1POST": folder / "3DAXT1postcontrast_MRI.nii.gz",
            "T2": folder / "3DAXT2SPACE_MRI.nii.gz",
        }
        return {contrast: path for contrast, path in named.items() if path.exists()}
    for folder in (data / "heads" / name, data / "open_ms" / name):
        found = {c: folder / f"{c}.nii.gz" for c in CONTRASTS}
        found = {contrast: path for contrast, path in found.items() if path.exists()}
        if found:
            return found
    return {}


def _real(name: str, resect: Path) -> Real:
    folder = resect / name.lower()
    if not folder.is_dir():
        return Real(name, resect / "us" / f"{name}_US_before.nii.gz")
    mri = sorted(p for p in folder.glob("*.nii.gz") if "_US_" not in p.name)
    tag = next(folder.glob("*.tag"))
    return Real(name, folder / f"{name}_US_before.nii.gz", tuple(mri), tag)


def real_images(real: Real, mri: Path) -> Images:
    """A real pair with its landmarks."""
    assert real.landmarks is not None
    return Images(read(mri), read(real.ius), *read_landmark_pairs([real.landmarks]))


@lru_cache(maxsize=6)
def read(path: Path) -> Volume:
    return Volume.read(path)


@lru_cache(maxsize=2)
def _anatomy(paths: tuple[Path, ...]) -> Anatomy:
    return read_anatomy([read(path) for path in paths])


def sweep_of(files: dict[str, Path], generator: torch.Generator) -> tuple[str, Sweep]:
    """Ultrasound simulated from one contrast of a head; that contrast's name comes with it."""
    contrast = list(files)[_int(len(files), generator)]
    anatomy = _anatomy((files[contrast],))
    spacing_mm = 0.5 + 0.5 * _u(generator)

    def draw() -> Simulation:
        probe, style = Probe.draw(anatomy, generator), Style.draw(generator)
        style = replace(style, blob_count=0, tumour_count=0)  # the MRI stays as it is
        bent = Deformation.draw(probe, generator) if _u(generator) < DEFORMED else None
        return simulate(
            anatomy, generator, probe=probe, style=style, deformation=bent, spacing_mm=spacing_mm
        )

    made = worth_registering(draw)
    inside = (made.volume.array > 0).nonzero()
    chosen = inside[torch.randint(len(inside), (TARGETS,), generator=generator)]
    targets = made.volume.points_ras(chosen.float())
    return contrast, Sweep(made.volume, Truth(targets, made.to_mri(targets)))


def shown_mri(
    files: dict[str, Path], not_this: str, generator: torch.Generator
) -> tuple[str, Volume]:
    """A contrast of a head, another than the one named where there is one."""
    others = [contrast for contrast in files if contrast != not_this] or list(files)
    contrast = others[_int(len(others), generator)]
    return contrast, read(files[contrast])


def degraded(mri: Volume, around: Volume | None, generator: torch.Generator) -> tuple[Volume, bool]:
    """MRI as clinics have it: thick slices, blur, bias, noise, and in most cases cropped to the box
    of the ultrasound ``around``, as published data sets have it, which the second value tells. Zero
    stays zero."""
    shown = (mri.array > 0).float()
    array = mri.array / float(mri.array.amax())
    if _u(generator) < 0.4:
        sigma = 0.3 + 0.9 * _u(generator)
        array = gaussian(array, [sigma / s for s in mri.spacing_mm[::-1].tolist()])
    if _u(generator) < 0.5:
        knots = torch.randn(1, 1, 3, 3, 3, generator=generator) * 0.4 * _u(generator)
        bias = F.interpolate(knots, mri.shape, mode="trilinear", align_corners=True)[0, 0]
        array = array * bias.exp()
    if _u(generator) < 0.5:
        array = array + 0.03 * _u(generator) * torch.randn(array.shape, generator=generator)
    made = mri.replaced(array.clamp_min(1e-3) * shown)
    if _u(generator) < 0.3:
        made = _thick(made, _int(3, generator), 2.0 + 4.0 * _u(generator))
    if around is not None and _u(generator) < BOXED:
        axes = around.ijk_to_ras[:3, :3] / around.spacing_mm
        margin = WIDEST_MM * _u(generator)
        return made.resample(Grid.around(around.corners_ras(), 0.6, margin, axes)), True
    return made, False


def _thick(mri: Volume, axis: int, slice_mm: float) -> Volume:
    """Slices of that thickness along one axis of the grid."""
    step = max(1.0, slice_mm / float(mri.spacing_mm[axis]))
    sigmas = [0.0, 0.0, 0.0]
    sigmas[2 - axis] = 0.42 * step
    blurred = mri.replaced(gaussian(mri.array, sigmas))
    count = max(2, int((mri.shape[2 - axis] - 1) / step) + 1)
    stretch = np.eye(4)
    stretch[axis, axis] = step
    shape = list(mri.shape)
    shape[2 - axis] = count
    coarse = Grid((shape[0], shape[1], shape[2]), mri.ijk_to_ras @ stretch)
    thick = blurred.replaced(blurred.array).sample(coarse.points())
    return Volume(thick, coarse.ijk_to_ras)


def softened(ius: Volume, generator: torch.Generator) -> Volume:
    """Resampled once more, as reconstruction software does, on axes of its own."""
    if _u(generator) < 0.5:
        return ius
    spacing = 0.4 + 0.6 * _u(generator)
    grid = Grid.around(ius.corners_ras(), spacing)
    shown = ius.replaced((ius.array > 0).float()).resample(grid).array > 0.999
    return Volume(torch.where(shown, ius.resample(grid).array, 0), grid.ijk_to_ras)


def speckle_only(ius: Volume, generator: torch.Generator) -> Volume:
    """The same field of view filled with speckle that fades with depth, and no anatomy."""
    sigma = 0.6 / float(ius.spacing_mm.mean())
    noise = torch.randn(2, *ius.shape, generator=generator)
    envelope = gaussian(noise, [sigma, 1.5 * sigma, 1.5 * sigma]).square().sum(0).sqrt()
    slow = gaussian(torch.randn(ius.shape, generator=generator), 8 / float(ius.spacing_mm.mean()))
    image = torch.log1p(envelope / envelope.mean()) * torch.exp(0.3 * slow / slow.std())
    return ius.replaced(torch.where(ius.array > 0, image.clamp_min(1e-3), 0))


def cropped_away(mri: Volume, ius: Volume) -> Volume:
    """A box of the head as far from the ultrasound as the head allows; the rest is cut off, and so
    is what lies in the box of the ultrasound."""
    shown = mri.points_ras((mri.array > 0).nonzero()[::97].float())
    place = torch.as_tensor(ius.centre_ras, dtype=torch.float32)
    far = (shown - place).norm(dim=1)
    middle = shown[far > torch.quantile(far, 0.8)].median(0).values.numpy().astype(float)
    corners = np.stack([middle - BOX_MM / 2, middle + BOX_MM / 2])
    left = mri.resample(Grid.around(corners, 1.0))
    hidden = ius.contains(Grid.of(left).points())
    return left.replaced(torch.where(hidden, 0, left.array))


def same_place(mri: Volume, other: Volume, sweep: Sweep) -> Volume:
    """The box of another head in which the likeness of what a sweep shows lies: by the extents of
    the two brains, as an atlas would align them. Resampled along RAS axes."""
    low, high = _extent(mri)
    there_low, there_high = _extent(other)
    scale = (there_high - there_low) / (high - low)
    corners = (sweep.ius.corners_ras() - low) * scale + there_low
    return other.resample(Grid.around(corners, 0.8, 8.0))


def _extent(mri: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that holds all but the outermost hundredth of what an MRI shows, RAS."""
    bright = mri.array > 0.1 * float(torch.quantile(mri.array.flatten()[::97], 0.99))
    points = mri.points_ras(bright.nonzero()[::31].float()).numpy()
    return np.quantile(points, 0.01, axis=0), np.quantile(points, 0.99, axis=0)


def reflected(ius: Volume) -> Volume:
    """The same field of view with its content mirrored: as an MRI that is mirrored would show it,
    without another MRI to describe."""
    return ius.replaced(ius.array.flip(2))


def emptied_images(mri: Volume, ius: Volume) -> Images:
    return without_its_side(Images(mri, ius, None, None))


def _u(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _int(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
