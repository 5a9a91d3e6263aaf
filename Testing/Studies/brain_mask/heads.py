"""The heads that the brain mask is trained and checked on, with their masks, on 2 mm grids.

A head without skull is its own mask: the non-empty area, closed. The mask of a whole head is
read from a folder that `teacher.py` fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from CrossKEYLib.config import read_yaml
from CrossKEYLib.geometry.brain import averaged, near_ras
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Grid, Volume

PEOPLE = Path(__file__).parents[3] / "Resources" / "Configs" / "people.yaml"
WORK_MM = 2.0
CLOSING_MM = 6.0
FAR_MM = 60.0  # kept around the brain
WHOLE = {  # person: contrasts with skull and their teacher's mask
    "colin27": {"T1": "colin27"},
    "mne-ecog": {"T1": "mne-ecog"},
    "synthsr-flair": {"FLAIR": "synthsr-flair"},
    "remind022": {"T1POST": "remind022", "T2": "remind022"},
    "seg3d-mr": {"T1": "seg3d-mr"},
}
ELSEWHERE = {
    ("remind022", "T1POST"): "remind022/3DAXT1postcontrast_MRI.nii.gz",
    ("remind022", "T2"): "remind022/3DAXT2SPACE_MRI.nii.gz",
}


@dataclass(frozen=True, eq=False)
class Head:
    """One contrast of one person; axes near RAS.

    Attributes:
        channels: float32 ``[3, K, J, I]``: value in [0, 1] (in a brain without skull continued
            beyond its rim), brain mask, and `FAR_MM` less the distance from the mask (mm).
        ijk_to_ras: of that grid, the brain's centre at the origin.
        extent_mm: standard deviation of the brain along R, A, S.
        whole: whether skull and scalp are in it.
    """

    person: str
    contrast: str
    channels: torch.Tensor
    ijk_to_ras: np.ndarray
    extent_mm: np.ndarray
    whole: bool


def files(data: Path, colin: Path, split: str) -> list[tuple[str, str, Path]]:
    """(person, contrast, file) of every contrast of the people in this list."""
    found: list[tuple[str, str, Path]] = []
    for person in read_yaml(PEOPLE)["heads"][split]:
        if person == "colin27":
            found.append((person, "T1", colin))
        elif person == "remind022":
            found += [(p, c, data / f) for (p, c), f in ELSEWHERE.items()]
        else:
            folder = data / ("open_ms" if person.startswith("p") and len(person) == 3 else "heads")
            paths = sorted((folder / person).glob("*.nii.gz"))
            found += [(person, f.name[:-7], f) for f in paths if f.name != "lesions.nii.gz"]
    return found


def read_heads(data: Path, colin: Path, masks: Path, split: str) -> list[Head]:
    """Every contrast of the people in this list, read from the images."""
    heads = []
    for person, contrast, path in files(data, colin, split):
        whole = WHOLE.get(person, {}).get(contrast)
        brain = Volume.read(masks / f"{whole}.nii.gz") if whole else None
        heads.append(read_head(person, contrast, Volume.read(path), brain))
    return heads


def own_mask(volume: Volume) -> Volume:
    """The closed non-empty area of a brain without skull, on the volume's grid."""
    array = volume.array.numpy()
    low, span = array.min(), array.max() - array.min()
    air = array[0, 0, 0]
    # Resampling with splines rings about the background, which then is not the lowest value.
    solid = np.abs(array - air) > span * (1e-6 if air == low else 0.01)
    labels, _ = ndimage.label(solid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    margin = int(np.ceil(CLOSING_MM / volume.spacing_mm.min())) + 1
    padded = np.pad(labels == sizes.argmax(), margin)
    spacing = tuple(volume.spacing_mm[::-1])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > CLOSING_MM
    closed = ndimage.binary_fill_holes(closed | padded)[(slice(margin, -margin),) * 3]
    return volume.replaced(torch.as_tensor(closed, dtype=torch.float32))


def read_head(person: str, contrast: str, volume: Volume, brain: Volume | None) -> Head:
    """Resample one image and its mask (its own non-empty area by default)."""
    mask = own_mask(volume) if brain is None else brain.resample(Grid.of(volume))
    scaled = near_ras(rescaled(volume, 0.001, 0.999))
    mask = averaged(near_ras(mask), WORK_MM)
    value = averaged(scaled, WORK_MM).array
    if brain is None:  # what lies beyond the rim must not darken it
        filled = averaged(scaled.replaced((scaled.array > 0).float()), WORK_MM).array
        value = torch.where(filled > 0.3, value / filled.clamp_min(0.3), 0)
        value = _continued(value, filled > 0.3)
    value, solid = _around(value, mask.array, int(FAR_MM / WORK_MM), cut=brain is None)
    ijk_to_ras = np.diag([WORK_MM] * 3 + [1.0])
    inside = solid.numpy() > 0.5
    kji = np.argwhere(inside)
    centre, extent = kji.mean(0)[::-1] * WORK_MM, kji.std(0)[::-1] * WORK_MM
    ijk_to_ras[:3, 3] = -centre
    distance = ndimage.distance_transform_edt(~inside, sampling=WORK_MM)
    near = torch.as_tensor(FAR_MM - distance, dtype=torch.float32).clamp_min(0)
    channels = torch.stack([value, solid, near])
    return Head(person, contrast, channels, ijk_to_ras, extent, brain is not None)


def _continued(value: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Unknown voxels take the value of the nearest known one."""
    nearest = ndimage.distance_transform_edt(
        ~known.numpy(), return_distances=False, return_indices=True
    )
    return value[tuple(torch.as_tensor(n, dtype=torch.long) for n in nearest)]


def _around(
    value: torch.Tensor, mask: torch.Tensor, margin: int, cut: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both padded to the brain's box and a margin (voxels), and with ``cut`` cut to it."""
    kji = (mask > 0.5).nonzero()
    low, high = kji.amin(0) - margin, kji.amax(0) + margin + 1
    pads: list[int] = []
    for axis in (2, 1, 0):
        ends = -int(low[axis]), int(high[axis]) - mask.shape[axis]
        pads += [end if cut else max(0, end) for end in ends]
    return F.pad(value, pads), F.pad(mask, pads)
