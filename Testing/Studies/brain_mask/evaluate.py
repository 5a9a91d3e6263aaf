"""Dice of the brain mask on heads that its network was not trained on.

    python -m Testing.Studies.brain_mask.evaluate --data ../shared/data --colin ch2.nii.gz \\
        --masks masks

The people are those of the list ``validation``. One of them has a skull, with deepbet's mask as
reference; the others have been stripped, their own area is the reference: as they are, and pasted
with noise of 2 % into the skull, scalp and neck of the first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from CrossKEYLib.geometry import brain
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Grid, Volume

from .drawn import pasted
from .heads import WORK_MM, Head, files, own_mask, read_head

NOISE = 0.02  # of the maximum


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "colin", "masks"):
        options.add_argument(f"--{name}", type=Path, required=True)
    options.add_argument("--split", default="validation")
    options.add_argument("--weights", type=Path, help="in place of the bundled ones")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.weights:
        brain._bundled = lambda device: brain.load(given.weights, device)
    scores: dict[str, list[float]] = {}
    for name, kind, image, reference in cases(given.data, given.colin, given.masks, given.split):
        start = time.process_time()
        mask = brain.brain_mask(image)
        used = time.process_time() - start
        score = dice(mask, reference)
        scores.setdefault(kind, []).append(score)
        print(f"{name:24} {kind:24} Dice {score:.4f}  {used:.2f} s of one core", flush=True)
    for kind, found in scores.items():
        print(f"{kind}: {len(found)}, mean {np.mean(found):.4f}, least {min(found):.4f}")


def dice(mask: Volume, reference: Volume) -> float:
    """Overlap on the reference's grid."""
    found = mask.resample(Grid.of(reference)).array > 0.5
    wanted = reference.array > 0.5
    return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))


def cases(
    data: Path, colin: Path, masks: Path, split: str
) -> Iterator[tuple[str, str, Volume, Volume]]:
    """(name, kind, image, reference) one after the other."""
    listed = files(data, colin, split)
    around: list[Head] = []
    for person, contrast, path in listed:
        if not (masks / f"{person}.nii.gz").exists():
            continue
        image, mask = Volume.read(path), Volume.read(masks / f"{person}.nii.gz")
        around.append(read_head(person, contrast, image, mask))
        reference = image.replaced((mask.resample(Grid.of(image)).array > 0.5).float())
        for kind, changed, wanted in changes(image, reference):
            yield f"{person} {contrast}", kind, changed, wanted
    for person, contrast, path in listed:
        if (masks / f"{person}.nii.gz").exists():
            continue
        image = Volume.read(path)
        reference = own_mask(image)
        yield f"{person} {contrast}", "stripped", image, reference
        cut = tuple(slice(n // 4, n - n // 4) for n in image.shape)
        yield f"{person} {contrast}", "stripped, crop", *(part(v, cut) for v in (image, reference))
        head = read_head(person, contrast, image, None)
        for other in around:
            yield f"{person} {contrast}", "in another head", *in_another(head, other)


def changes(image: Volume, reference: Volume) -> Iterator[tuple[str, Volume, Volume]]:
    """What a clinical scan may be like, made from a clean whole head."""
    yield "whole head", image, reference
    yield "noise 2 %", noisy(image), reference
    bent = torch.exp(0.4 * _waves(image.shape))
    yield "bias field", image.replaced(image.array * bent), reference
    coarse = brain.averaged(image, 1.0)
    shape = [max(1, round(image.shape[0] * image.spacing_mm[2] / 5)), *coarse.shape[1:]]
    slices = F.interpolate(coarse.array[None, None], shape, mode="area")[0, 0]
    yield "slices of 5 mm", Volume(slices, brain.cell_affine(coarse, shape)), reference
    turned = torch.where(image.array > 0, float(image.array.max()) - image.array, 0)
    yield "inverted contrast", image.replaced(turned), reference
    longer = with_neck(image)
    yield "neck", noisy(longer), reference
    cut = tuple(slice(n // 4, n - n // 4) for n in image.shape)
    yield "crop", part(image, cut), part(reference, cut)


def noisy(image: Volume, seed: int = 0) -> Volume:
    """With Rician noise of `NOISE`."""
    generator = torch.Generator().manual_seed(seed)
    sigma = NOISE * float(image.array.max())
    a, b = sigma * torch.randn(2, *image.shape, generator=generator)
    return image.replaced(torch.hypot(image.array + a, b))


def with_neck(image: Volume, length_mm: float = 80.0) -> Volume:
    """The image's lowest slice goes on below, as a neck would."""
    near = brain.near_ras(image)
    n = round(length_mm / near.spacing_mm[2])
    below = near.array[2:3].expand(n, -1, -1)
    matrix = near.ijk_to_ras @ from_parts(np.eye(3), [0, 0, -n])
    return Volume(torch.cat([below, near.array]), matrix)


def in_another(head: Head, other: Head) -> tuple[Volume, Volume]:
    """The brain within the surroundings of another person, with noise, on a 2 mm grid."""
    edge = np.array([90.0, 110.0, 90.0])
    shape = tuple(int(n) for n in (2 * edge / WORK_MM)[::-1])
    grid = Grid((shape[0], shape[1], shape[2]), from_parts(np.eye(3) * WORK_MM, -edge))
    value, mask = (Volume(c, head.ijk_to_ras).resample(grid).array for c in head.channels[:2])
    mixed, _ = pasted(value, mask, grid.points(), head, other, np.random.default_rng(0))
    return noisy(Volume(mixed, grid.ijk_to_ras)), Volume(mask, grid.ijk_to_ras)


def part(volume: Volume, cut: tuple[slice, ...]) -> Volume:
    start = [s.start for s in reversed(cut)]
    return Volume(volume.array[cut], volume.ijk_to_ras @ from_parts(np.eye(3), start))


def _waves(shape: tuple[int, int, int]) -> torch.Tensor:
    axes = [torch.linspace(-1, 1, n) for n in shape]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    return torch.sin(2 * k + 1) * torch.cos(1.5 * j) + torch.sin(2 * i)


if __name__ == "__main__":
    main()
