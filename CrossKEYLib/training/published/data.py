"""The published data layout, and the points and patches that are drawn from it.

``img/mr``, ``img/synthetic_us`` (for training) and ``img/us`` (for testing) hold ``.nii.gz``
files, all of a case in one world. With one case everything belongs to it; with several, the part
of a file name before its first "-" says to which (``Case059-t2_full.nii.gz``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ...descriptors.patches import normalise, sample_patches
from ...errors import InputError
from ...geometry.intensity import rescaled
from ...geometry.transform import from_parts
from ...geometry.volume import Grid, Volume
from ...keypoints.heatmap import draw_points, heatmap, weighted
from ...keypoints.keypoints import Keypoints
from ...keypoints.sift3d import detect

GRID_MM = 1.0  # of the heatmap
REMEDIES = {
    "mr": "put the MRI there",
    "us": "put the real ultrasound there",
    "synthetic_us": "put synthetic ultrasound there, for example from `crosskey synthesize`",
}


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case, sorted; ``synthetic`` or ``real`` may be empty."""

    name: str
    mri: tuple[Path, ...]
    synthetic: tuple[Path, ...]
    real: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's images, scaled to [0, 1], in one world.

    Attributes:
        mri: contrasts.
        ius: synthetic styles, or one real volume.
        inside: for each of them, the share of the patch around each place that lies in its
            field of view.
        heat: chance of drawing a point, not normalised.
    """

    mri: Sequence[Volume]
    ius: Sequence[Volume]
    inside: Sequence[Volume]
    heat: Volume


def find_cases(data_dir: Path, needed: str) -> list[CaseFiles]:
    """Sort the files of the layout into cases that have an MRI and the ``needed`` ultrasound.

    Args:
        data_dir: holds ``img``.
        needed: "us" or "synthetic_us".

    Raises:
        InputError: a folder that is needed is missing or empty, or a file belongs to no MRI.
    """
    found = {name: sorted((data_dir / "img" / name).glob("*.nii.gz")) for name in REMEDIES}
    for name in ("mr", needed):
        if not found[name]:
            raise InputError(f"no .nii.gz files in {data_dir / 'img' / name}; {REMEDIES[name]}")
    names = sorted({_case_of(path) for path in found["mr"]})
    for path in found[needed]:
        if len(names) > 1 and _case_of(path) not in names:
            raise InputError(
                f"{path} belongs to none of the cases {', '.join(names)}; "
                "let its name begin with that of a case and a hyphen"
            )

    def of(case: str, name: str) -> tuple[Path, ...]:
        return tuple(p for p in found[name] if len(names) == 1 or _case_of(p) == case)

    cases = [CaseFiles(n, of(n, "mr"), of(n, "synthetic_us"), of(n, "us")) for n in names]
    return [case for case in cases if (case.real if needed == "us" else case.synthetic)]


def _case_of(path: Path) -> str:
    return path.name.removesuffix(".nii.gz").split("-")[0]


def read_scaled(paths: Sequence[Path], device: torch.device) -> list[Volume]:
    """Images clipped to their 1st to 99th percentile and scaled to [0, 1].

    Raises:
        InputError: an image that cannot be used; the line names it.
    """
    volumes = []
    for path in paths:
        volume = Volume.read(path).to(device)
        try:
            volumes.append(rescaled(volume))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return volumes


def build_case(
    name: str,
    mri: Sequence[Volume],
    ius: Sequence[Volume],
    patch_mm: float,
    min_inside: float,
    more_ius: Sequence[Volume] = (),
) -> Case:
    """Find where points may be drawn: SIFT3D keypoints of all images, within the field of view.

    Args:
        name: of the case, for messages.
        mri, ius: scaled, see `Case`.
        patch_mm: edge of a patch.
        min_inside: least share of a patch inside a field of view.
        more_ius: further images whose keypoints count.

    Raises:
        InputError: the images do not overlap, or nothing salient is in the field of view.
    """
    corners = np.concatenate([_filled_corners(volume) for volume in ius])
    grid = Grid.around(corners, GRID_MM, GRID_MM)
    views = [v.replaced((v.array > 0).float()).resample(grid, "nearest") for v in ius]
    inside = [box_mean(view, round(patch_mm / GRID_MM)) for view in views]
    view = views[0].replaced(torch.stack([v.array for v in views]).amax(0))
    keypoints = [
        [_keypoints(volume, grid, view, name) for volume in mri],
        [_keypoints(volume, grid, view, name) for volume in (*ius, *more_ius)],
    ]
    heat = heatmap(keypoints, grid)
    places = grid.points(heat.device)
    allowed = torch.stack([v.sample(places) >= min_inside for v in inside]).any(0)
    filled = view.points_ras(view.array.nonzero())
    centre = filled.mean(0)
    radius = float((filled - centre).norm(dim=1).max())
    heat = weighted(heat.replaced(heat.array * allowed), centre.tolist(), radius + GRID_MM)
    if not bool((heat.array > 0).any()):
        raise InputError(
            f"case {name}: no salient point has {min_inside:.0%} of its {patch_mm:g} mm patch in "
            "the field of view; give a larger ultrasound or a smaller data.patch_size"
        )
    return Case(mri, ius, inside, heat)


def _keypoints(volume: Volume, grid: Grid, view: Volume, name: str) -> Keypoints:
    """SIFT3D keypoints in the field of view; what lies outside cannot outshine them."""
    local = volume.resample(grid)
    if not bool((local.array * view.array > 0).any()):
        raise InputError(
            f"case {name}: MRI and ultrasound do not overlap; their headers must agree on the world"
        )
    return detect(local, mask=view)


def _filled_corners(volume: Volume) -> np.ndarray:
    """Corners ``[8, 3]`` (RAS mm) of the box around the non-empty voxels."""
    kji = (volume.array > 0).nonzero()
    low, high = kji.amin(0).tolist(), kji.amax(0).tolist()
    box = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
    return volume.points_ras(torch.as_tensor(box, device=volume.device)).cpu().numpy()


def box_mean(volume: Volume, size: int) -> Volume:
    """Mean over the cube of ``size`` voxels around each place, zero beyond the grid."""
    x = F.pad(volume.array[None, None], [size] * 6)
    for axis in range(3):
        kernel = [1, 1, 1]
        kernel[axis] = size
        x = F.avg_pool3d(x, kernel, 1)
    # The first cube ends one voxel before the grid begins.
    shift = from_parts(np.eye(3), np.full(3, -(size + 1) / 2))
    return Volume(x[0, 0], volume.ijk_to_ras @ shift)


def draw(
    case: Case,
    count: int,
    generator: torch.Generator,
    min_distance_mm: float = 4.0,
    min_inside: float = 0.8,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw points from the heatmap, and for each an ultrasound that shows its surroundings.

    Returns:
        ``[N, 3]`` RAS mm and indices ``[N]`` into ``case.ius``; N <= ``count``, fewer where no
        more fit.
    """
    points = draw_points(case.heat, count, generator, min_distance_mm)
    shown = torch.stack([volume.sample(points) for volume in case.inside]) >= min_inside
    chance = torch.rand(shown.shape, generator=generator).to(shown.device)
    choice = chance.masked_fill(~shown, -1).argmax(0)
    kept = shown.any(0)
    return points[kept], choice[kept]


def cut_patches(
    volumes: Sequence[Volume],
    choice: torch.Tensor,
    points: torch.Tensor,
    rotations: torch.Tensor,
    size: int,
    spacing_mm: float = 1.0,
) -> torch.Tensor:
    """Normalised patches ``[N, 1, S, S, S]``, each from the volume that ``choice [N]`` names.

    Args:
        volumes: smoothed to ``spacing_mm`` where they are finer.
        choice: indices into ``volumes``.
        points: ``[N, 3]`` RAS mm.
        rotations: ``[N, 3, 3]``, columns = patch axes in RAS.
        size, spacing_mm: of a patch.
    """
    patches = points.new_empty(len(points), 1, size, size, size)
    for index, volume in enumerate(volumes):
        part = (choice == index).nonzero()[:, 0]
        if len(part):
            patches[part] = sample_patches(volume, points[part], size, spacing_mm, rotations[part])
    return normalise(patches)
