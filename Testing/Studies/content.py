"""Ultrasound and MRI as exports disfigure them: does registration end where the clean pair does?

    python Testing/Studies/content.py [--head ch2.nii.gz] [--simulate HEAD.nii.gz]

Takes the bundled sample, changes one image, registers, and prints how far the transform lies from
that of the clean pair (root mean square over the points of the ultrasound), with the verdict.
``ch2.nii.gz`` of the Debian package mricron-data is the same head with its skull; without it those
rows are left out. With ``--simulate``, the pair is another head, whole, and an ultrasound simulated
from it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from CrossKEYLib.errors import InputError, InputWarning
from CrossKEYLib.evaluation.cases import simulated_cases
from CrossKEYLib.formats.samples import checked
from CrossKEYLib.geometry.transform import Matrix, from_parts, rms_displacement_mm
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.resources import resource

Change = Callable[[Volume, np.random.Generator], Volume]
Samples = Callable[[np.ndarray, np.random.Generator], np.ndarray]

NECK_MM = 80.0
NOISE = 0.02  # of the maximum
SLICE_MM = 5.0


def of_samples(change: Samples) -> Change:
    """A change of the samples alone, as it would be read from a file."""

    def changed(image: Volume, rng: np.random.Generator) -> Volume:
        made = change(image.array.numpy().astype(float), rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            return image.replaced(checked(made))

    return changed


def on_background(level: float) -> Change:
    return of_samples(lambda ius, rng: np.where(ius > 0, ius, level))


def on_noise(level: float, deviation: float) -> Change:
    def change(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.where(ius > 0, ius, np.abs(rng.normal(level, deviation, ius.shape)))

    return of_samples(change)


def with_text(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters along one edge of the box, through all slices."""
    made = ius.copy()
    step, high = 10, ius.max()
    for start in range(4, ius.shape[2] - step, step):
        made[:, 4:12, start : start + 4] = high
        made[:, 4:8, start : start + 7] = high
    return made


def with_scale_bar(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = ius.copy()
    made[:, :, -3:-1] = ius.max()
    return made


def with_border(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = np.full(ius.shape, ius.max())
    made[2:-2, 2:-2, 2:-2] = ius[2:-2, 2:-2, 2:-2]
    return made


def in_decibel(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.maximum(20 * np.log10(np.maximum(ius, 1e-9) / ius.max()), -60)


def in_decibel_on_zero(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(ius > 0, in_decibel(ius, rng), 0)


def with_hot_voxels(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made = image.copy()
    made[tuple(rng.integers(0, n, 50) for n in image.shape)] = 50 * image.max()
    return made


def wrapped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values up to 40,000 in a file of signed 16 bits."""
    return (image * (40000 / image.max())).astype(np.uint16).astype(np.int16).astype(float)


def around_zero(mri: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standardised within the head, as preprocessing leaves it."""
    head = mri > 0
    return np.where(head, (mri - mri[head].mean()) / mri[head].std(), 0)


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rician noise, in the air too."""
    real, imaginary = NOISE * image.max() * rng.normal(size=(2, *image.shape))
    return np.hypot(image + real, imaginary)


def thick(mri: Volume, rng: np.random.Generator) -> Volume:
    """Slices of `SLICE_MM`."""
    count = round(SLICE_MM / mri.spacing_mm[2])
    slices = mri.array[: len(mri.array) // count * count].unflatten(0, (-1, count)).mean(1)
    steps = from_parts(np.diag([1.0, 1, count]), [0, 0, (count - 1) / 2])
    return Volume(slices, mri.ijk_to_ras @ steps)


def cropped(mri: Volume, rng: np.random.Generator) -> Volume:
    """Without the lower third and the right third of the box."""
    k, _, i = mri.shape
    start = from_parts(np.eye(3), [0, 0, k // 3])
    return Volume(mri.array[k // 3 :, :, : 2 * i // 3], mri.ijk_to_ras @ start)


def defaced(mri: Volume, rng: np.random.Generator) -> Volume:
    """Cut off in front and below by a plane that takes some of the frontal lobe with it."""
    points = Grid.of(mri).points()
    face = points[..., 1] - 0.8 * points[..., 2] > 65
    return mri.replaced(torch.where(face, mri.array.amin(), mri.array))


def with_neck(mri: Volume, rng: np.random.Generator) -> Volume:
    """A column of uneven tissue below the lowest slice, then `noisy`."""
    count = round(NECK_MM / mri.spacing_mm[2])
    points = Grid.of(mri).points()[0, ..., :2]
    centre = torch.as_tensor(mri.centre_ras[:2], dtype=torch.float32)
    disc = ((points - centre).norm(dim=-1) < 55).float()
    level = float(mri.array[mri.array > 0].median())
    blobs = torch.from_numpy(rng.normal(1, 0.3, (1, 1, 8, 16, 16))).float()
    blobs = F.interpolate(blobs, (count, *disc.shape), mode="trilinear")[0, 0]
    below = (level * disc * blobs).clamp_min(0)
    matrix = mri.ijk_to_ras @ from_parts(np.eye(3), [0, 0, -count])
    return of_samples(noisy)(Volume(torch.cat([below, mri.array]), matrix), rng)


IUS: dict[str, Change] = {
    "grey background": on_background(90.0),
    "white background": on_background(255.0),
    "noisy dark background": on_noise(12.0, 5.0),
    "noisy grey background": on_noise(100.0, 10.0),
    "text": of_samples(with_text),
    "scale bar": of_samples(with_scale_bar),
    "bright border": of_samples(with_border),
    "decibel, -60 to 0": of_samples(in_decibel),
    "decibel on zero": of_samples(in_decibel_on_zero),
    "hot voxels": of_samples(with_hot_voxels),
}
MRI: dict[str, Change] = {
    "hot voxels": of_samples(with_hot_voxels),
    "wrapped 16 bits": of_samples(wrapped),
    "standardised": of_samples(around_zero),
    "slices of 5 mm": thick,
    "cropped": cropped,
    "defaced": defaced,
    "noise of 2 %": of_samples(noisy),
    "noise and a neck": with_neck,
}
HEAD: dict[str, Change] = {
    "as it is": lambda head, rng: head,
    "noise of 2 %": of_samples(noisy),
    "noise and a neck": with_neck,
    "slices of 5 mm": thick,
    "cropped": cropped,
    "defaced": defaced,
}
CHANGES = {"iUS": IUS, "MRI": MRI, "whole head": HEAD}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--head", type=Path, help="ch2.nii.gz of mricron-data")
    parser.add_argument("--simulate", type=Path, help="a whole head, in place of the sample")
    parser.add_argument("--only", nargs="*", default=[""], help="rows that hold one of these")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mri, ius = _pair(args.simulate, args.seed)
    points = ius.points_ras((ius.array > 0).nonzero()[::997].float())
    clean = register(mri, ius, seed=args.seed)
    assert clean.matrix is not None
    images = {"iUS": ius, "whole head" if args.simulate else "MRI": mri}
    if args.head:
        images["whole head"] = Volume.read(args.head)
    print(f"{'changed':>36} {'off by':>9}  verdict")
    for name, image in images.items():
        for text, change in CHANGES[name].items():
            if not any(part in f"{name}: {text}" for part in args.only):
                continue
            made = change(image, np.random.default_rng(args.seed))
            pair = (mri, made) if name == "iUS" else (made, ius)
            _tell(f"{name}: {text}", *pair, clean.matrix, points, args.seed)


def _pair(head: Path | None, seed: int) -> tuple[Volume, Volume]:
    """MRI and ultrasound: the sample, or a head and what is simulated from it."""
    if head is None:
        mri, ius = (Volume.read(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
        return mri, ius
    images = simulated_cases([head], 1, seed)[0].load()
    return images.mri, images.ius


def _tell(
    text: str, mri: Volume, ius: Volume, clean: Matrix, points: torch.Tensor, seed: int
) -> None:
    try:
        found = register(mri, ius, seed=seed)
    except InputError as error:
        print(f"{text:>36} {'none':>9}  {error}", flush=True)
        return
    off = "none"
    if found.matrix is not None:
        off = f"{rms_displacement_mm(points, clean, found.matrix):.2f} mm"
    reasons = "; ".join(found.trust.reasons)
    print(
        f"{text:>36} {off:>9}  {found.trust.verdict} {found.trust.confidence:.2f} {reasons}",
        flush=True,
    )


if __name__ == "__main__":
    main()
