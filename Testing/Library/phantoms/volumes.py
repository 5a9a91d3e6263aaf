"""Small synthetic volumes for tests, and what reading a bad one says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.volumes import read_volume
from CrossKEYLib.geometry.volume import Volume

SHAPE = (9, 12, 15)  # (K, J, I), all different so that a swapped axis shows

OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
ORIENTATIONS = {
    "ras": np.eye(3),
    "lps": np.diag([-1.0, -1.0, 1.0]),
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "permuted": np.eye(3)[[2, 0, 1]],
    "oblique": OBLIQUE,
    "oblique left-handed": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
}


def matrix_of(orientation: str, spacing: tuple[float, float, float] = (0.5, 1.25, 2.0)):
    """Index to RAS mm, 4x4, with an origin away from zero."""
    matrix = np.eye(4)
    matrix[:3, :3] = ORIENTATIONS[orientation] * spacing
    matrix[:3, 3] = [-40.25, 13.5, 71.125]
    return matrix


def noise_volume(
    orientation: str = "ras", shape: tuple[int, int, int] = SHAPE, seed: int = 0
) -> Volume:
    """Uniform noise in [0, 100) on an anisotropic grid."""
    generator = torch.Generator().manual_seed(seed)
    return Volume(100 * torch.rand(shape, generator=generator), matrix_of(orientation))


def nifti(path: Path, array: np.ndarray | None = None, **fields: tuple[str, int, object]) -> Path:
    """A NIfTI-1 file with header bytes overwritten: ``name=(struct format, offset, values)``."""
    image = sitk.GetImageFromArray(noise_volume().array.numpy() if array is None else array)
    sitk.WriteImage(image, str(path))
    raw = bytearray(path.read_bytes())
    for layout, offset, values in fields.values():
        struct.pack_into(layout, raw, offset, *np.atleast_1d(values).tolist())
    path.write_bytes(raw)
    return path


def refusal(path: Path) -> str:
    """The one line that `read_volume` refuses ``path`` with."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert sorted(path.parent.rglob("*")) == before
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")
