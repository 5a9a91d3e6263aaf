"""Ultrasound and MRI as exports disfigure them: does registration end where the clean pair does?

    python Testing/Studies/content.py

Takes the bundled sample, changes one image, registers, and prints how far the transform lies from
that of the clean pair (root mean square over the points of the ultrasound), with the verdict.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

from CrossKEYLib.geometry.transform import Matrix, rms_displacement_mm
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.resources import resource

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def on_background(level: float) -> Change:
    return lambda ius, rng: np.where(ius > 0, ius, level)


def on_noise(level: float, deviation: float) -> Change:
    def change(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.where(ius > 0, ius, np.abs(rng.normal(level, deviation, ius.shape)))

    return change


def with_text(ius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Letters and a scale bar along two edges of the box, through all slices."""
    made = ius.copy()
    step, high = 10, ius.max()
    for start in range(4, ius.shape[2] - step, step):
        made[:, 4:12, start : start + 4] = high
        made[:, 4:8, start : start + 7] = high
    made[:, :, -3:-1] = high
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


def around_zero(mri: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standardised within the head, as preprocessing leaves it."""
    head = mri > 0
    return np.where(head, (mri - mri[head].mean()) / mri[head].std(), 0)


def thick(mri: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slices of 5 samples, each repeated."""
    mean = ndimage.uniform_filter1d(mri, 5, axis=0)
    return np.repeat(mean[2::5], 5, axis=0)[: len(mri)]


IUS: dict[str, Change] = {
    "grey background": on_background(90.0),
    "white background": on_background(255.0),
    "noisy dark background": on_noise(12.0, 5.0),
    "noisy grey background": on_noise(100.0, 10.0),
    "text and scale bar": with_text,
    "bright border": with_border,
    "decibel, -60 to 0": in_decibel,
    "decibel on zero": in_decibel_on_zero,
    "hot voxels": with_hot_voxels,
}
MRI: dict[str, Change] = {
    "hot voxels": with_hot_voxels,
    "standardised": around_zero,
    "slices of 5 samples": thick,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="changes whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mri, ius = (Volume.read(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
    points = ius.points_ras((ius.array > 0).nonzero()[::997].float())
    clean = register(mri, ius, seed=args.seed)
    assert clean.matrix is not None
    print(f"{'changed':>36} {'off by':>9}  verdict")
    for name, changed in (("iUS", IUS), ("MRI", MRI)):
        for text, change in changed.items():
            if args.only in text:
                rng = np.random.default_rng(args.seed)
                image = ius if name == "iUS" else mri
                made = torch.from_numpy(change(image.array.numpy().astype(float), rng)).float()
                pair = (mri, ius.replaced(made)) if name == "iUS" else (mri.replaced(made), ius)
                _tell(f"{name}: {text}", *pair, clean.matrix, points, args.seed)


def _tell(
    text: str, mri: Volume, ius: Volume, clean: Matrix, points: torch.Tensor, seed: int
) -> None:
    found = register(mri, ius, seed=seed)
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
