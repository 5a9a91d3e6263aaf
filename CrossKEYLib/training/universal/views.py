"""Two augmented views of one region: their geometry and their intensities.

The views of a pair may show different contrasts of a patient. Both are rotated and scaled, one is
deformed, and each gets its own intensity curve, so that they have only the anatomy in common. The
second view may be ultrasound: simulated in another style each time, or a registered sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ...config import ViewConfig
from ...descriptors.patches import random_rotations
from ...descriptors.uae import DIMMEST
from ...errors import InputError
from ...geometry import transform
from ...geometry.ct import windowed
from ...geometry.filters import gaussian
from ...geometry.foreground import FOREGROUND
from ...geometry.intensity import gamma_normalised, rescaled
from ...geometry.volume import Grid, Volume
from ...synthesis.anatomy import Anatomy, read_anatomy
from ...synthesis.simulator import simulate

BORDER_VOXELS = 4  # points nearer to a view's border are not used
KNOTS = 10  # of an intensity curve
_NEAREST_CUT = -0.17  # of the edge, beyond the centre: about a third is left
_THICKEST = 6  # voxels of 1 mm
PLAIN = 0.1  # weight of a point where ultrasound shows no structure


@dataclass(frozen=True, eq=False)
class Subject:
    """One patient: contrasts on one 1 mm grid along the RAS axes.

    Attributes:
        name: of the patient.
        contrasts: ``[C, K, J, I]``, scaled to [0, 1], 0 where empty.
        origin: RAS mm of voxel (0, 0, 0).
        foreground: ``[1, K, J, I]``, 1 where there is something to describe.
        inside: ``[M, 3]`` (i, j, k) of such voxels, thinned.
        labels: ``[K, J, I]`` int16 structures, 0 for none; None when unknown.
        echoes: the data from which ultrasound is simulated; None for no ultrasound.
    """

    name: str
    contrasts: torch.Tensor
    origin: np.ndarray
    foreground: torch.Tensor
    inside: torch.Tensor
    labels: torch.Tensor | None = None
    echoes: Echoes | None = None


@dataclass(frozen=True, eq=False)
class Echoes:
    """The data from which ultrasound of a patient is simulated.

    Attributes:
        anatomy: of the contrasts, in their coordinate system.
        saliency: where ultrasound may show structure, in [0, 1]; in the subject's grid.
        sweeps: gamma-normalised ultrasound in the subject's grid, in place of simulated;
            usually none.
    """

    anatomy: Anatomy
    saliency: Volume
    sweeps: tuple[Volume, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """One augmented crop.

    Attributes:
        image: ``[S, S, S]``.
        seen: ``[1, S, S, S]``, 1 where the image shows something to describe.
        places: ``[3, S, S, S]``, where each voxel lies in the subject's grid (i, j, k = mm).
        affine: from view index (i, j, k) to the subject's; without the bending.
    """

    image: torch.Tensor
    seen: torch.Tensor
    places: torch.Tensor
    affine: transform.Matrix

    def place_of(self, ijk: torch.Tensor) -> torch.Tensor:
        """Positions ``[N, 3]`` (mm) in the subject of view positions ``[N, 3]``."""
        return sample_at(self.places, ijk).T


def read_subject(
    name: str,
    images: Sequence[Volume],
    labels: Volume | None = None,
    ultrasound: bool = False,
    sweeps: Sequence[Volume] = (),
) -> Subject:
    """Bring a patient's contrasts onto one grid.

    Args:
        name: shown in messages.
        images: contrasts in one world, the first decides the extent.
        labels: structures on any grid in that world.
        ultrasound: whether views may be simulated ultrasound. The brain is found in the first
            image, best in a stripped one.
        sweeps: ultrasound in that world, see `gamma_normalised`, in place of simulated.

    Raises:
        InputError: an image is constant, or no brain is found to simulate from.
    """
    grid = Grid.around(images[0].corners_ras(), 1.0)
    echoes = None
    try:
        scaled = [rescaled(windowed(image)) for image in images]
        if ultrasound or sweeps:
            anatomy, into = read_anatomy(images), transform.invert(grid.ijk_to_ras)
            shown = anatomy.saliency().moved(into)
            echoes = Echoes(anatomy, shown, tuple(sweep.moved(into) for sweep in sweeps))
    except InputError as error:
        raise InputError(f"patient {name}: {error}") from error
    contrasts = torch.stack([volume.resample(grid).array for volume in scaled])
    foreground = (gaussian(contrasts[0], 2.0) > FOREGROUND).float()
    found = foreground.nonzero()
    if len(found) == 0:
        raise InputError(f"patient {name}: the first image is almost all dark; check it")
    inside = found[:: max(1, len(found) // 200_000)].flip(1).float()
    known = None if labels is None else labels.resample(grid, "nearest").array.to(torch.int16)
    return Subject(name, contrasts, grid.ijk_to_ras[:3, 3], foreground[None], inside, known, echoes)


def draw_views(
    subject: Subject, config: ViewConfig, generator: torch.Generator, severity: float = 1.0
) -> tuple[View, View]:
    """Two views around a random point; only the second is deformed and may be ultrasound.

    Args:
        subject: whose images.
        config: the largest differences between views.
        generator: CPU generator, the only source of chance.
        severity: 0 to 1, scales these differences; at 0 the views are shifted crops of one image.
    """
    sweep = _swept(subject, config, generator)
    inside = subject.inside if sweep is None else sweep.points_ras((sweep.array > 0).nonzero())
    pick = int(torch.randint(len(inside), (), generator=generator))
    centre = inside[pick].double().numpy()
    share = _u(generator)  # one image may lie straight, and the other take all of the angle
    turns = [
        random_rotations(1, severity * part * config.max_angle_deg, generator)[0].double().numpy()
        for part in (share, 1 - share)
    ]
    size = int(config.crop_mm)
    contrasts = torch.randint(len(subject.contrasts), (2,), generator=generator).tolist()
    if _u(generator) > severity:
        contrasts[1] = contrasts[0]
    views = []
    for turn, contrast, bent in zip(turns, contrasts, (False, True), strict=True):
        shift = (2 * torch.rand(3, generator=generator).numpy() - 1) * config.shift_mm
        scale = 1 + severity * (2 * _u(generator) - 1) * config.max_scale / 2
        linear = turn * scale
        corner = centre + linear @ (shift - (size - 1) / 2)
        affine = transform.from_parts(linear, corner)
        places = Grid((size, size, size), affine).points().permute(3, 0, 1, 2)
        if bent:
            knots = torch.randn(1, 3, 4, 4, 4, generator=generator)
            knots = knots * severity * config.bend_mm * _u(generator)
            places = (
                places
                + F.interpolate(knots, (size, size, size), mode="trilinear", align_corners=True)[0]
            )
        where = places.flatten(1).T
        worth = sample_at(subject.foreground, where).reshape(size, size, size)
        own = sweep if bent else None
        if own is None:
            image = sample_at(subject.contrasts[contrast][None], where).reshape(size, size, size)
        else:
            image = own.sample(where).reshape(size, size, size)
            worth = worth * _telling(subject, where, generator).reshape(size, size, size)
        if _u(generator) < severity * config.cut_share:
            image = cut(image, generator)
        seen = (image > 0) & (worth > 0.5)
        image = changed(image, generator, severity) if own is None else gained(image, generator)
        views.append(View(image, seen[None].float(), places.contiguous(), affine))
    return views[0], views[1]


def _swept(subject: Subject, config: ViewConfig, generator: torch.Generator) -> Volume | None:
    """Ultrasound in the subject's grid; None if this pair has none."""
    if subject.echoes is None or _u(generator) >= config.ultrasound_share:
        return None
    if sweeps := subject.echoes.sweeps:
        return sweeps[int(torch.randint(len(sweeps), (), generator=generator))]
    made = simulate(subject.echoes.anatomy, generator).volume
    if not bool((made.array > 0).any()):  # a random probe may see nothing
        return None
    return gamma_normalised(made).moved(transform.from_parts(np.eye(3), -subject.origin))


def _telling(subject: Subject, ijk: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Which places ``[N, 3]`` of the subject are drawn from in ultrasound: mostly salient ones."""
    assert subject.echoes is not None
    chance = subject.echoes.saliency.sample(ijk) + PLAIN
    return torch.rand(chance.shape, generator=generator) < chance


def common_points(
    views: tuple[View, View], count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points seen in both views: ``[N, 3]`` (i, j, k) in each, at most ``count``."""
    first, second = views
    size = first.image.shape[0]
    free = size - 1 - 2 * BORDER_VOXELS
    drawn = torch.rand(6 * count, 3, generator=generator) * free + BORDER_VOXELS
    drawn = drawn[sample_at(second.seen, drawn)[0] > 0.5]
    there = transform.apply(transform.invert(first.affine), second.place_of(drawn))
    seen = ((there >= BORDER_VOXELS) & (there <= size - 1 - BORDER_VOXELS)).all(1)
    seen &= sample_at(first.seen, there)[0] > 0.5
    return there[seen][:count], drawn[seen][:count]


def sample_at(channels: torch.Tensor, ijk: torch.Tensor) -> torch.Tensor:
    """Interpolate ``channels [C, K, J, I]`` at index positions ``[N, 3]``; ``[C, N]``."""
    size = torch.tensor(channels.shape[:0:-1], dtype=torch.float32, device=ijk.device)
    grid = ijk.float() * (2 / (size - 1)) - 1
    found = F.grid_sample(
        channels[None], grid[None, None, None].to(channels.dtype), align_corners=True
    )
    return found[0, :, 0, 0]


def cut(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Set the far side of a random plane to zero; about a third to nine tenths are left."""
    size = image.shape[0]
    line = torch.arange(size) - (size - 1) / 2
    normal = torch.randn(3, generator=generator)
    normal = normal / normal.norm()
    across = normal[0] * line[:, None, None] + normal[1] * line[None, :, None] + normal[2] * line
    return torch.where(
        across > size * (_NEAREST_CUT + (0.4 - _NEAREST_CUT) * _u(generator)), 0, image
    )


def sliced(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same in slices of 2 to `_THICKEST` voxels, interpolated back to the grid."""
    axis, size = int(torch.randint(3, (), generator=generator)), image.shape[0]
    thickness = int(torch.randint(2, _THICKEST + 1, (), generator=generator))
    rows = image.movedim(axis, -1).flatten(0, 1)[None]
    means = F.avg_pool1d(rows, thickness, ceil_mode=True)
    whole = means.shape[-1] * thickness
    rows = F.interpolate(means, whole, mode="linear", align_corners=False)[0, :, :size]
    return rows.reshape(size, size, size).movedim(-1, axis)


def changed(image: torch.Tensor, generator: torch.Generator, severity: float = 1.0) -> torch.Tensor:
    """Other intensities, same anatomy: random curve (in part falling or not monotone),
    bias field, blur, thick slices, noise, filling outside; other empty voxels stay empty."""
    filled = image > 0
    place = image.clamp(0, 1) * KNOTS
    left = place.long().clamp_max(KNOTS - 1)
    curve = _curve(generator, severity)
    y = torch.lerp(curve[left], curve[left + 1], place - left)
    bias = torch.randn(1, 1, 3, 3, 3, generator=generator) * 0.3 * severity * _u(generator)
    bias = F.interpolate(bias, image.shape, mode="trilinear", align_corners=True)[0, 0]
    y = y * bias.exp_()
    if _u(generator) < 0.35 * severity:
        y = gaussian(y, 0.4 + 0.8 * _u(generator))
    elif _u(generator) < 0.3 * severity:
        y = sliced(y, generator)
    y = y + 0.06 * severity * _u(generator) * torch.randn(y.shape, generator=generator)
    empty = _u(generator) if _u(generator) < 0.15 * severity else 0.0
    return torch.where(filled, y.clamp(DIMMEST, 1), empty)


def gained(ius: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gamma-normalised ultrasound, as it is embedded, with small random changes."""
    gamma = float(torch.exp(0.2 * torch.randn((), generator=generator)))
    return torch.where(ius > 0, (ius**gamma).clamp(DIMMEST, 1), 0)


def _curve(generator: torch.Generator, severity: float) -> torch.Tensor:
    """Values in [0, 1] at `KNOTS` + 1 even intensities."""
    steps = torch.rand(KNOTS, generator=generator) ** 2 + 0.05
    kind = _u(generator)
    rising = _u(generator) > severity  # gentle maps alone
    if kind < 0.25 and not rising:  # tissues change their order, as in unknown contrasts
        steps = steps - 0.9 * torch.rand(KNOTS, generator=generator)
    curve = F.pad(steps.cumsum(0), (1, 0))
    curve = (curve - curve.amin()) / (curve.amax() - curve.amin())
    curve = torch.lerp(torch.linspace(0, 1, KNOTS + 1), curve, severity * _u(generator))
    if kind > 0.65 and not rising:
        curve = 1 - curve
    low = 0.25 * severity * _u(generator)
    return low + curve * (1 - low) * (1 - 0.4 * severity * _u(generator))


def _u(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
