"""Random images of heads with a known brain: contrast, surroundings, field of view, artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from CrossKEYLib.geometry.brain import CELL_MM, averaged, near_ras, network_input
from CrossKEYLib.geometry.filters import sample_channels
from CrossKEYLib.geometry.transform import apply, from_parts, invert
from CrossKEYLib.geometry.volume import Grid, Volume

from .heads import FAR_MM, Head

STEPS_MM = 2.0, 3.0, 3.0, 4.0  # of the image; the coarser are drawn faster
LARGEST_CELLS = 60  # of the network's grid along each axis


@dataclass(frozen=True, eq=False)
class Drawn:
    """A random image and its brain (share of each voxel), on one grid."""

    image: Volume
    brain: Volume

    def seen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Input of the network ``[2, K, J, I]`` and share of brain ``[K, J, I]``."""
        value, filled = network_input(self.image)
        target = averaged(near_ras(self.brain), CELL_MM).array
        return torch.stack([value.array, filled.array]), target


def draw(heads: Sequence[Head], rng: np.random.Generator) -> Drawn:
    """One random image; drawn anew while a crop shows nothing."""
    while True:
        drawn = _draw(heads, rng)
        if float(drawn.image.array.amin()) < float(drawn.image.array.amax()):
            return drawn


def _draw(heads: Sequence[Head], rng: np.random.Generator) -> Drawn:
    """Half of them of whole heads, half of brains in other surroundings."""
    whole = [h for h in heads if h.whole]
    bare = [h for h in heads if not h.whole]
    head = _pick(whole if rng.random() < 0.5 else bare, rng)
    grid = _field_of_view(head, rng)
    points = grid.points()
    placed = apply(invert(_pose(rng)), points) + _bent(grid.shape, rng)
    value, brain, near = sample_channels(head.channels, invert(head.ijk_to_ras), placed)
    distance = FAR_MM - near
    value = tone(_texture_brain(value, rng) if rng.random() < 0.08 else value, rng)
    value = _lesion(value, brain, rng)
    filled = torch.ones_like(brain, dtype=torch.bool)
    air = None
    kind = rng.random()
    if head.whole and kind < 0.75:
        if rng.random() < 0.3:
            value = torch.lerp(tone(value, rng), value, brain)
        air = (sample_channels(head.channels[:1], invert(head.ijk_to_ras), placed)[0] < 0.04) & (
            distance > 3
        )
        if rng.random() < 0.2:
            value = _neck(value, placed, distance, brain, air, rng)
    elif kind > (0.75 if not head.whole else 0.93):  # without skull
        value = value * brain
        if rng.random() < 0.75:
            filled = brain > 0.5
        else:
            air = brain < 0.5
    elif rng.random() < 0.5:
        value, air = pasted(value, brain, placed, head, _pick(whole, rng), rng)
    else:
        value, air = _shells(value, brain, distance, placed, rng)
    if air is not None:
        value, filled = _defaced(value, filled, distance, placed, rng)
    value = _bias(value, rng)
    value, brain = _thick_slices(value, rng), brain
    value = _noise(value, filled, air, rng)
    value = torch.where(filled, value.clamp_min(0) + 1e-4, 0)
    if rng.random() < 0.05:
        hot = torch.rand(value.shape, generator=seeded(rng)) < 1e-4
        value = torch.where(hot, value.amax() * float(rng.uniform(2, 30)), value)
    return Drawn(Volume(value, grid.ijk_to_ras), Volume(brain, grid.ijk_to_ras))


def _pick(items, rng):
    """A person at random, then one of their contrasts."""
    people = sorted({item.person for item in items})
    person = people[rng.integers(len(people))]
    mine = [item for item in items if item.person == person]
    return mine[rng.integers(len(mine))]


def seeded(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def _normal(shape, rng: np.random.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(rng))


def _smooth(shape, cell: float, rng: np.random.Generator, channels: int = 1) -> torch.Tensor:
    """Random field of unit variance about, varying over ``cell`` voxels; ``[C, K, J, I]``."""
    coarse = [max(2, round(n / cell) + 1) for n in shape]
    field = _normal((1, channels, *coarse), rng)
    return F.interpolate(field, tuple(shape), mode="trilinear", align_corners=True)[0]


def _field_of_view(head: Head, rng: np.random.Generator) -> Grid:
    """The box that the image shows, about the brain's centre at the origin."""
    low = np.array([-80.0, -100.0, -75.0])
    high = np.array([80.0, 100.0, 75.0])
    kind = rng.random()
    if kind < 0.6:  # the head, with or without neck
        low -= rng.uniform([0, 0, 0], [40, 25, 75 if rng.random() < 0.4 else 25])
        high += rng.uniform([0, 0, 0], [40, 25, 30])
    elif kind < 0.72:  # a slab
        axis = rng.integers(3)
        middle = rng.uniform(0.5 * low[axis], 0.5 * high[axis])
        thick = rng.uniform(20, 70)
        low -= 15
        high += 15
        low[axis], high[axis] = middle - thick / 2, middle + thick / 2
    else:  # a crop
        middle = rng.uniform(0.75 * low, 0.75 * high)
        edge = rng.uniform(30, 130) * rng.uniform(0.7, 1.3, 3)
        low, high = middle - edge / 2, middle + edge / 2
    largest = LARGEST_CELLS * CELL_MM
    middle, edge = (low + high) / 2, np.minimum(high - low, largest)
    step = rng.choice(STEPS_MM)
    size = np.maximum(4, np.round(edge / step)).astype(int)
    start = middle - (size - 1) * step / 2
    return Grid((int(size[2]), int(size[1]), int(size[0])), from_parts(np.eye(3) * step, start))


def _pose(rng: np.random.Generator) -> np.ndarray:
    """Random affine of the head within the box."""
    spread = 12 if rng.random() < 0.75 else 35
    turn = Rotation.from_rotvec(np.radians(rng.normal(0, spread, 3))).as_matrix()
    linear = turn @ np.diag(rng.uniform(0.88, 1.14, 3) * rng.uniform(0.92, 1.1))
    if rng.random() < 0.1:  # axes that are not what the file says
        linear = np.eye(3)[rng.permutation(3)] @ linear
        linear = np.diag(rng.choice([-1.0, 1.0], 3)) @ linear
    if rng.random() < 0.1:
        linear[:, rng.integers(3)] += linear[:, rng.integers(3)] * rng.uniform(-0.25, 0.25)
    if rng.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0, 1.0])
    if abs(np.linalg.det(linear)) < 0.3:
        linear = np.eye(3)
    return from_parts(linear, rng.normal(0, 6, 3))


def _bent(shape, rng: np.random.Generator) -> torch.Tensor:
    """Smooth displacement, mm ``[K, J, I, 3]``."""
    size = rng.uniform(0, 3)
    return size * _smooth(shape, 25, rng, 3).permute(1, 2, 3, 0)


def tone(value: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another contrast: a random curve of the intensity, rising, falling or neither."""
    kind = rng.random()
    if kind < 0.3:
        return value.clamp(0, 1) ** float(rng.uniform(0.6, 1.6))
    knots = int(rng.integers(4, 9))
    heights = rng.uniform(0, 1, knots)
    if kind < 0.55:
        heights = np.sort(heights)
    elif kind < 0.7:
        heights = np.sort(heights)[::-1].copy()
    low, high = heights.min(), heights.max()
    heights = (heights - low) / max(high - low, 1e-3)
    if rng.random() < 0.8:  # air stays dark
        heights = np.concatenate([[0.0], rng.uniform(0.1, 0.3) + 0.7 * heights])
        at = np.concatenate([[0.0], np.linspace(0.06, 1, knots)])
    else:
        at = np.linspace(0, 1, knots)
    return _curve(value, at, heights)


def _curve(value: torch.Tensor, at: np.ndarray, heights: np.ndarray) -> torch.Tensor:
    """Piecewise linear through these points, read from a table."""
    table = torch.as_tensor(np.interp(np.linspace(0, 1, 256), at, heights), dtype=torch.float32)
    return table[(value.clamp(0, 1) * 255).round().long()]


def _texture(shape, rng: np.random.Generator) -> torch.Tensor:
    """Blobs of random size and tone in [0, 1]."""
    field = _smooth(shape, rng.uniform(2, 15), rng)[0] + 0.4 * _smooth(shape, 2, rng)[0]
    return tone((0.5 + 0.25 * field).clamp(0, 1), rng)


def _texture_brain(value: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A brain of random blobs, nothing like tissue."""
    weight = float(rng.uniform(0.1, 0.6))
    return (rng.uniform(0.3, 0.8) + weight * (_texture(value.shape, rng) - 0.5)).clamp(0, 1)


def _ball(shape, centre, radii) -> torch.Tensor:
    """Soft ellipsoid in [0, 1]; centre and radii in voxels, (k, j, i)."""
    total = torch.zeros(())
    for axis, n in enumerate(shape):
        line = ((torch.arange(n) - float(centre[axis])) / float(radii[axis])).square()
        total = total + line.reshape([-1 if a == axis else 1 for a in range(3)])
    return ((1 - total.sqrt()) * float(min(radii)) / 1.5 + 0.5).clamp(0, 1)


def _lesion(value: torch.Tensor, brain: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Tumours, cysts and cavities in the brain, at its rim too."""
    inside = (brain > 0.5).nonzero()
    while len(inside) and rng.random() < 0.3:
        centre = inside[rng.integers(len(inside))].numpy()
        radii = rng.uniform(3, 16) * rng.uniform(0.7, 1.3, 3)
        ball = _ball(value.shape, centre, radii) * brain
        level = rng.uniform(0, 1) + 0.1 * _smooth(value.shape, 3, rng)[0]
        if rng.random() < 0.5:
            rim = ball - _ball(value.shape, centre, 0.8 * radii) * brain
            value = torch.lerp(value, torch.full_like(value, float(rng.uniform(0, 1.2))), rim)
        value = torch.lerp(value, level, ball * float(rng.uniform(0.4, 1)))
    return value


def pasted(value, brain, placed, head: Head, other: Head, rng):
    """Skull, scalp and neck of another person around the brain; returns also where air is."""
    linear = np.diag(other.extent_mm / head.extent_mm * rng.uniform(0.97, 1.03, 3))
    there = apply(from_parts(linear, rng.normal(0, 1.5, 3)), placed)
    outside, theirs, _ = sample_channels(other.channels, invert(other.ijk_to_ras), there)
    air = (outside < 0.04) & (theirs < 0.1)
    outside = tone(outside, rng)
    gap = float(rng.uniform(0, 1)) + 0.08 * _smooth(value.shape, 2, rng)[0]
    outside = torch.lerp(outside, gap, theirs)
    return torch.lerp(outside, value, brain), air & (brain < 0.1)


def _shells(value, brain, distance, placed, rng):
    """Fluid, bone, marrow, fat and muscle of random thickness and tone, a neck and air."""
    shape = value.shape
    level = lambda: float(rng.uniform(0, 1))  # noqa: E731
    layers = [(rng.uniform(0.3, 5), level())]
    if rng.random() < 0.3:
        layers.append((rng.uniform(0.5, 2), level()))  # dura
    layers.append((rng.uniform(1, 4), rng.uniform(0, 0.25) if rng.random() < 0.7 else level()))
    if rng.random() < 0.7:
        layers.append((rng.uniform(1, 5), level()))  # marrow
        layers.append((rng.uniform(1, 3), layers[-2][1]))
    layers.append((rng.uniform(2, 12), level()))
    if rng.random() < 0.4:
        layers.append((rng.uniform(1, 3), level()))
    uneven = 1 + 0.35 * _smooth(shape, 14, rng)[0]
    depth = distance / uneven.clamp(0.3, 2)
    outside, edge = torch.zeros_like(value), 0.0
    for thick, tint in layers:
        outside = torch.where(depth >= edge, tint, outside)
        edge += thick
    air = depth > edge
    outside = outside * (1 + rng.uniform(0, 0.3) * _smooth(shape, rng.uniform(1, 4), rng)[0])
    outside = torch.where(air, 0, outside)
    mixed = torch.lerp(outside, value, brain)
    if rng.random() < 0.6:
        mixed = _neck(mixed, placed, distance, brain, air, rng)
    return mixed, air


def _neck(value, placed, distance, brain, air, rng):
    """Neck and face: cylinder and ellipsoid of blobs, outside the brain where air was; eyes.
    ``air`` is changed in place."""
    x, y, z = placed.unbind(-1)
    below = (z < rng.uniform(-60, -20)) & (
        ((x / rng.uniform(45, 85)) ** 2 + ((y + rng.uniform(-10, 40)) / rng.uniform(45, 85)) ** 2)
        < 1
    )
    face = (
        (x / rng.uniform(45, 70)) ** 2
        + ((y - rng.uniform(30, 60)) / rng.uniform(35, 60)) ** 2
        + ((z + rng.uniform(50, 80)) / rng.uniform(40, 70)) ** 2
    ) < 1
    new = (below | face) & (air | (distance > rng.uniform(4, 14))) & (brain < 0.05)
    tissue = _texture(value.shape, rng)
    rim = float(rng.uniform(0, 1))
    value = torch.where(new, torch.lerp(tissue, torch.full_like(tissue, rim), 0.3), value)
    for side in (-1, 1):
        eye = ((x - side * 32) ** 2 + (y - rng.uniform(60, 85)) ** 2 + (z + 35) ** 2) < 12**2
        value = torch.where(eye & (brain < 0.05), float(rng.uniform(0, 1)), value)
    air &= ~new
    return value


def _defaced(value, filled, distance, placed, rng):
    """Cut off by planes that stay outside the brain, the face most often."""
    for _ in range(rng.choice([0, 1, 2], p=[0.7, 0.2, 0.1])):
        axis = np.array([0, 1.0, -0.8]) if rng.random() < 0.6 else rng.normal(size=3)
        axis = axis + rng.normal(0, 0.2, 3)
        along = placed @ torch.as_tensor(axis / np.linalg.norm(axis), dtype=torch.float32)
        inside = distance < float(rng.uniform(0, 15))
        if not bool(inside.any()):
            continue
        gone = (along > along[inside].max()) & ~inside
        value = torch.where(gone, 0, value)
        filled = filled & ~(gone & torch.tensor(bool(rng.random() < 0.5)))
    return value, filled


def _bias(value: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    strength = rng.uniform(0, 0.5) if rng.random() < 0.7 else 0
    return value * (strength * _smooth(value.shape, 35, rng)[0]).exp()


def _thick_slices(value: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Slices of several mm along one axis, or a general blur."""
    shape = tuple(value.shape)
    if rng.random() < 0.25:
        coarse = list(shape)
        axis = rng.integers(3)
        coarse[axis] = max(2, round(shape[axis] / rng.uniform(1.2, 4)))
        value = F.interpolate(value[None, None], coarse, mode="area")
        return F.interpolate(value, shape, mode=rng.choice(["trilinear", "nearest"]))[0, 0]
    if rng.random() < 0.2:
        coarse = [max(2, round(n / rng.uniform(1, 2))) for n in shape]
        value = F.interpolate(value[None, None], coarse, mode="area")
        return F.interpolate(value, shape, mode="trilinear")[0, 0]
    return value


def _noise(value, filled, air, rng) -> torch.Tensor:
    """Rician noise of up to 6 % of the maximum; air is noisy too, or set to zero."""
    sigma = rng.uniform(0, 0.06) if rng.random() < 0.7 else 0.0
    sigma *= float(value[filled].max()) if bool(filled.any()) else 0.0
    real = value + sigma * _normal(value.shape, rng)
    noisy = (real.square() + (sigma * _normal(value.shape, rng)).square()).sqrt()
    if air is not None:
        kind = rng.random()
        if kind < 0.35:
            noisy = torch.where(air, 0, noisy)
            filled &= ~air
        elif kind < 0.45:
            noisy = torch.where(air, float(rng.uniform(0, 0.5)), noisy)
    return noisy
