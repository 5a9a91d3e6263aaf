"""Training pairs: one MRI crop and one synthetic iUS of the same place, and common points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...descriptors.patches import random_rotations
from ...geometry import transform
from ...geometry.filters import gaussian
from ...geometry.intensity import gamma_normalised
from ...geometry.volume import Grid, Volume
from ...synthesis.anatomy import Anatomy
from ...synthesis.deformation import Deformation
from ...synthesis.lesion import Lesion
from ...synthesis.probe import Probe
from ...synthesis.simulator import Simulation, simulate

CROP_MM = 64.0  # edge of both crops
SHIFT_MM = 18.0  # how far each is laid off the common place, per axis; less for smaller crops
BORDER_VOXELS = 4  # points nearer to a crop's border are not used


@dataclass(frozen=True, eq=False)
class Patient:
    """What training needs of one patient.

    Attributes:
        contrasts: MRI scaled to [0, 1].
        anatomy: read off them.
        saliency: chance of drawing a point, in [0, 1].
        synthetic: ready-made scaled iUS in the same world, instead of simulated ones.
    """

    contrasts: Sequence[Volume]
    anatomy: Anatomy
    saliency: Volume
    synthetic: Sequence[Volume] = ()


@dataclass(frozen=True, eq=False)
class Pair:
    """One crop of each modality and places seen in both.

    Attributes:
        mri, ius: scaled to [0, 1], each on its own rotated 1 mm grid.
        points_fixed, points_moving: ``[N, 3]`` RAS mm, where the MRI and the iUS have them; they
            differ by the deformation.
        elsewhere: ``[M, 3]`` RAS mm, further places in the MRI crop, for negatives.
    """

    mri: Volume
    ius: Volume
    points_fixed: torch.Tensor
    points_moving: torch.Tensor
    elsewhere: torch.Tensor


def draw_pairs(
    patient: Patient,
    generator: torch.Generator,
    *,
    max_angle_deg: float,
    count: int = 2,
    points: int = 1024,
    spacing_mm: float = 1.0,
    crop_mm: float = CROP_MM,
    in_mri_tones: bool = False,
) -> list[Pair]:
    """Draw training pairs from one synthetic iUS.

    Args:
        patient: whose MRI.
        generator: CPU generator, the only source of chance.
        max_angle_deg: largest rotation of the crops against each other, per axis.
        count: how many crops of the same iUS.
        points: how many common points in each.
        spacing_mm: of the crops.
        crop_mm: edge of the crops.
        in_mri_tones: show the MRI, in other tones, in the field of view of the iUS instead.

    Returns:
        At most ``count`` pairs: crops whose field of view holds too little are left out.
    """
    simulation = _drawn_ius(patient, generator, deformed=not in_mri_tones)
    ius = simulation.volume
    candidates = _common_points(patient, simulation, 24 * points, generator)
    pairs = []
    for _ in range(count):
        if len(candidates) == 0:
            break
        turns = random_rotations(2, max_angle_deg / 2, generator).numpy().astype(float)
        shifts = (torch.rand(2, 3, generator=generator).numpy() * 2 - 1) * SHIFT_MM
        centre = candidates[int(torch.randint(len(candidates), (), generator=generator))]
        shifts = shifts * crop_mm / CROP_MM
        size = int(crop_mm / spacing_mm)
        centres = (simulation.to_mri(centre[None])[0], centre)
        grids = [
            _crop(*laid, size, spacing_mm) for laid in zip(centres, turns, shifts, strict=True)
        ]
        common = candidates[_inside(candidates, grids[1])]
        common = common[_inside(simulation.to_mri(common), grids[0])]
        if len(common) < points // 4:
            continue
        common = common[:points]
        mri = _cut(_drawn_mri(patient, grids[0], simulation.lesions, generator), generator)
        seen = ius.resample(grids[1])
        if in_mri_tones:
            tones = _drawn_mri(patient, grids[1], (), generator).array
            seen = seen.replaced(torch.where(seen.array > 0, tones, 0))
        else:
            seen = _augmented_ius(seen, generator)
        seen = _cut(seen, generator)
        there = simulation.to_mri(common)
        shown = (mri.sample(there) > 0) & (seen.sample(common) > 0)
        if int(shown.sum()) < points // 4:
            continue
        local = torch.rand(2 * points, 3, generator=generator).to(ius.device)
        elsewhere = mri.points_ras(local * (torch.tensor(mri.shape, device=ius.device) - 1))
        pairs.append(Pair(mri, seen, there[shown], common[shown], elsewhere))
    return pairs


def _drawn_ius(patient: Patient, generator: torch.Generator, deformed: bool) -> Simulation:
    """One of the patient's ready-made iUS, or a new one."""
    if patient.synthetic:
        index = int(torch.randint(len(patient.synthetic), (), generator=generator))
        return Simulation(patient.synthetic[index])
    probe = Probe.draw(patient.anatomy, generator)
    device = patient.anatomy.maps.device
    deformation = Deformation.draw(probe, generator, device) if deformed else None
    return simulate(patient.anatomy, generator, probe=probe, deformation=deformation)


def _crop(
    centre: torch.Tensor, axes: np.ndarray, shift_mm: np.ndarray, size: int, spacing_mm: float
) -> Grid:
    """A cube of ``size`` samples a side near ``centre``, never quite in the same place.

    Convolutions can tell from their padding how far the border is. Were both crops laid alike
    around the points, that would give every match away, and nothing else would be learned.
    """
    corner = centre.cpu().numpy() + axes @ (shift_mm - (size - 1) * spacing_mm / 2)
    return Grid((size, size, size), transform.from_parts(axes * spacing_mm, corner))


def _inside(points: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Which points lie in the grid, away from its border."""
    ijk = transform.apply(transform.invert(grid.ijk_to_ras), points)
    size = torch.tensor(grid.shape[::-1], device=points.device)
    return ((ijk >= BORDER_VOXELS) & (ijk <= size - 1 - BORDER_VOXELS)).all(1)


def _common_points(
    patient: Patient, simulation: Simulation, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Points of the iUS ``[N, 3]`` (RAS mm) in the field of view and the brain, mostly on salient
    structure; random order."""
    ius = simulation.volume
    inside = (ius.array > 0).nonzero()
    if len(inside) == 0:
        return ius.array.new_zeros(0, 3)
    pick = torch.randint(len(inside), (3 * count,), generator=generator)
    kji = inside[pick.to(inside.device)].float()
    kji = kji + torch.rand(kji.shape, generator=generator).to(kji.device) - 0.5
    points = ius.points_ras(kji)
    places = simulation.to_mri(points)
    brain = patient.anatomy.brain.sample(places) > 0.5
    chance = (patient.saliency.sample(places) + 0.03) * brain
    keep = torch.rand(len(points), generator=generator).to(points.device) < chance
    return points[keep][:count]


def _cut(volume: Volume, generator: torch.Generator) -> Volume:
    """Empty the far side of a random plane, half of the time: images end anywhere."""
    points = Grid.of(volume).points(volume.device)
    centre = torch.as_tensor(volume.centre_ras, dtype=torch.float32, device=volume.device)
    if float(torch.rand((), generator=generator)) < 0.5:
        return volume
    normal = torch.randn(3, generator=generator).to(volume.device)
    distance = 14 + 20 * float(torch.rand((), generator=generator))
    outside = (points - centre) @ (normal / normal.norm()) > distance
    return volume.replaced(torch.where(outside, 0, volume.array))


def _drawn_mri(
    patient: Patient, grid: Grid, lesions: Sequence[Lesion], generator: torch.Generator
) -> Volume:
    """One of the contrasts on a grid, augmented."""
    contrast = int(torch.randint(len(patient.contrasts), (), generator=generator))
    mri = patient.contrasts[contrast].resample(grid)
    return _augmented_mri(mri, patient.anatomy, lesions, generator)


def _augmented_mri(
    mri: Volume, anatomy: Anatomy, lesions: Sequence[Lesion], generator: torch.Generator
) -> Volume:
    """Random intensity curve (mostly rising), bias, noise, blur, spots, and surroundings."""

    def u(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    x, device = mri.array, mri.device
    steps = torch.rand(8, generator=generator) + 0.15
    if u(0, 1) < 0.4:  # contrasts never seen: tissues may trade places
        steps = steps - 1.2 * torch.rand(8, generator=generator)
    rising = torch.cat([torch.zeros(1), steps.cumsum(0)])
    curve = ((rising - rising.amin()) / (rising.amax() - rising.amin())).to(device)
    curve = torch.lerp(torch.linspace(0, 1, 9, device=device), curve, u(0, 1))
    place = x.clamp(0, 1) * 8
    left = place.long().clamp_max(7)
    y = torch.lerp(curve[left], curve[left + 1], place - left)
    bias = torch.randn(1, 1, 3, 3, 3, generator=generator).to(device)
    bias = torch.nn.functional.interpolate(bias, x.shape, mode="trilinear", align_corners=True)
    y = y * torch.exp(u(0, 0.2) * bias[0, 0])
    if lesions:
        grid = Grid.of(mri).points(device)
        for lesion in lesions:  # each has its own contrast against its surroundings
            y = _with_lesion(y, lesion, grid, u)
    y = y + u(0, 0.04) * torch.randn(y.shape, generator=generator).to(device)
    y = _coarser(y, u)
    y = torch.where(x > 0, y.clamp(1e-3, 1), 0)
    if u(0, 1) < 0.4:  # stripped heads, whole heads and crops differ outside the brain
        brain = anatomy.brain.sample(Grid.of(mri).points(device)) > 0.5
        filling = u(0, 1) * torch.ones_like(y)
        if u(0, 1) < 0.5:
            rough = torch.randn(1, 1, 12, 12, 12, generator=generator).to(device)
            rough = torch.nn.functional.interpolate(rough, x.shape, mode="trilinear")[0, 0]
            filling = (filling + 0.3 * rough).clamp(0, 1)
        y = torch.where(brain, y, filling)
    return mri.replaced(y)


def _with_lesion(
    y: torch.Tensor, lesion: Lesion, grid: torch.Tensor, u: Callable[[float, float], float]
) -> torch.Tensor:
    """MRI samples ``[K, J, I]`` at RAS ``grid [K, J, I, 3]`` with a lesion; the border of a tumour
    lies a little beside that which the ultrasound shows."""
    if not lesion.is_tumour:
        return torch.lerp(y, torch.full_like(y, u(0, 1)), u(0.3, 1) * lesion.inside(grid))
    body, rim, core = lesion.parts(grid, grown_mm=u(-1, 1))
    y = torch.lerp(y, torch.full_like(y, u(0, 1)), u(0.5, 1) * body)
    if u(0, 1) < 0.5:  # enhanced by contrast agent
        y = torch.lerp(y, torch.full_like(y, u(0, 1)), u(0.3, 1) * rim)
    return torch.lerp(y, torch.full_like(y, u(0, 1)), core)


def _coarser(y: torch.Tensor, u: Callable[[float, float], float]) -> torch.Tensor:
    """Blurred a little in all directions or, as by thick slices, much in one; or as it is."""
    kind = u(0, 1)
    if kind < 0.3:
        return gaussian(y, u(0.3, 1.0))
    if kind < 0.5:
        thick = [0.0, 0.0, 0.0]
        thick[int(u(0, 3)) % 3] = u(0.6, 2.0)
        return gaussian(y, thick)
    return y


def _augmented_ius(ius: Volume, generator: torch.Generator) -> Volume:
    """One tone, as registration sees real ultrasound, but never quite the same."""
    if not bool((ius.array > 0).any()):
        return ius
    gamma = float(torch.exp(0.2 * torch.randn((), generator=generator)))
    return ius.replaced(gamma_normalised(ius).array ** gamma)
