"""Masks of the whole heads, by deepbet (Fisch et al., Bioinformatics 40(3), 2024; MIT licence).

    pip download deepbet==1.0.2 --no-deps && unzip deepbet-1.0.2-py3-none-any.whl -d deepbet
    python -m Testing.Studies.brain_mask.teacher --data ../shared/data --colin ch2.nii.gz \\
        --deepbet deepbet --output masks

Its two networks are all that is taken of it: they lie in the wheel as TorchScript. The masks were
looked at in slices along two axes before anything was trained with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from CrossKEYLib.geometry.brain import near_ras
from CrossKEYLib.geometry.volume import Volume

from .heads import WHOLE, files

COARSE, FINE = (128,) * 3, (256,) * 3  # grids of the two networks
QUANTILES = 0.005, 0.995
MARGIN = 0.1  # of the brain's box, kept on each side


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "colin", "deepbet", "output"):
        options.add_argument(f"--{name}", type=Path, required=True)
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    models = given.deepbet / "data" / "models"
    coarse, fine = (torch.jit.load(models / n).eval() for n in ("bbox_model.pt", "model.pt"))
    named = {}
    for split in ("training", "validation"):
        for person, contrast, path in files(given.data, given.colin, split):
            if contrast in WHOLE.get(person, {}):  # the first contrast's mask serves the others
                named.setdefault(WHOLE[person][contrast], path)
    for name, path in named.items():
        mask = teach(near_ras(Volume.read(path)), coarse, fine)
        mask.write(given.output / f"{name}.nii.gz")
        litres = float(mask.array.sum()) * float(np.prod(mask.spacing_mm)) * 1e-6
        print(f"{name}: {litres:.2f} litres", flush=True)


@torch.inference_mode()
def teach(volume: Volume, coarse: torch.nn.Module, fine: torch.nn.Module) -> Volume:
    """Mask of a whole head whose axes lie near R, A and S."""
    x = volume.array.permute(2, 1, 0)
    small = F.interpolate(x[None, None], COARSE, mode="nearest-exact")
    ordered = small.flatten().sort().values
    low, high = (float(ordered[int(q * (len(ordered) - 1))]) for q in QUANTILES)
    rough = _largest(coarse(_normalised(small, low, high))[0, 1].numpy() > 0.5)
    box = []
    for axis, size in enumerate(x.shape):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(rough.mean(others) > 0.02)
        middle = (filled[0] + filled[-1] + 1) / 2 * size / COARSE[axis]
        edge = (filled[-1] + 1 - filled[0]) * (1 + 2 * MARGIN) * size / COARSE[axis]
        box.append(slice(max(0, int(middle - edge / 2)), min(size, int(middle + edge / 2))))
    part = x[tuple(box)]
    near = F.interpolate(part[None, None], FINE, mode="nearest-exact")
    found = fine(_normalised(near, low, high))[:, 1:2]
    share = torch.zeros_like(x)
    share[tuple(box)] = F.interpolate(found, part.shape, mode="trilinear")[0, 0]
    solid = ndimage.binary_fill_holes(_largest(share.numpy() > 0.5))
    return volume.replaced(torch.as_tensor(solid, dtype=torch.float32).permute(2, 1, 0))


def _normalised(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """As deepbet's networks were trained."""
    x = ((x - low) / (high - low)).clamp(0, 1)
    return 0.226 * (x - x.mean()) / x.std() + 0.449


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


if __name__ == "__main__":
    main()
