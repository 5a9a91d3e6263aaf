"""Where salient, modality-consistent points lie, and random draws of such points.

CrossKEY (arXiv 2507.18551), section "keypoint heatmap".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..geometry import transform
from ..geometry.filters import gaussian
from ..geometry.volume import Grid, Volume
from .keypoints import Keypoints, distances

CANDIDATES_PER_POINT = 64  # how many drawn candidates are tested for their distance
BLOCK = 2048  # candidates decided at once; bounds the distance matrix


def heatmap(
    modalities: Sequence[Sequence[Keypoints]], grid: Grid, sigma_voxels: float = 2.0
) -> Volume:
    """Probability of a keypoint at each voxel.

    Per modality the keypoints of all its images are counted on the grid, blurred and scaled to
    [0, 1]; the modalities a and b combine as a + b - ab, three and more likewise.

    Args:
        modalities: for each modality (say MR, synthetic iUS) the keypoints of each image.
        grid: where to count; keypoints outside are left out.
        sigma_voxels: standard deviation of the blur.

    Returns:
        Volume on ``grid``, values in [0, 1]; all zero without keypoints.
    """
    ras_to_ijk = transform.invert(grid.ijk_to_ras)
    device = next((k.points.device for images in modalities for k in images), "cpu")
    absent = torch.ones(grid.shape, device=device)
    for images in modalities:
        counts = torch.zeros_like(absent)
        for keypoints in images:
            kji = transform.apply(ras_to_ijk, keypoints.points).round().long().flip(-1)
            size = torch.tensor(grid.shape, device=kji.device)
            k, j, i = kji[((kji >= 0) & (kji < size)).all(1)].T
            counts.index_put_((k, j, i), counts.new_ones(len(k)), accumulate=True)
        blurred = gaussian(counts, sigma_voxels)
        absent *= 1 - blurred / blurred.amax().clamp_min(1e-30)
    return Volume(1 - absent, grid.ijk_to_ras)


def weighted(heatmap: Volume, centre_ras: Sequence[float], radius_mm: float) -> Volume:
    """Weight by 1 - (d / radius)^2, d the distance (mm) from the centre of the field of view.

    Zero beyond ``radius_mm``; three quarters at half of it.
    """
    centre = torch.tensor(list(centre_ras), dtype=torch.float32, device=heatmap.device)
    square = (Grid.of(heatmap).points(heatmap.device) - centre).square_().sum(-1)
    return heatmap.replaced(heatmap.array * (1 - square / radius_mm**2).clamp_min(0))


def draw_points(
    heatmap: Volume,
    count: int,
    generator: torch.Generator,
    min_distance_mm: float = 4.0,
    mask: Volume | None = None,
) -> torch.Tensor:
    """Draw points one after the other with probability proportional to the heatmap.

    Positions are uniform within the drawn voxel; a point nearer than ``min_distance_mm`` to an
    earlier one is dropped. At most one point per voxel.

    Args:
        heatmap: non-negative; any scale.
        count: how many points are wanted.
        generator: source of chance, on any device.
        min_distance_mm: smallest distance between two returned points.
        mask: points lie only where this exceeds 0.5; any grid.

    Returns:
        Points ``[N, 3]`` in RAS mm, N <= ``count``: fewer where no more fit.
    """
    voxels = (heatmap.array > 0).nonzero()
    chance = heatmap.array[tuple(voxels.T)]

    def uniform(*shape: int) -> torch.Tensor:
        values = torch.rand(*shape, generator=generator, device=generator.device)
        return values.to(heatmap.device)

    points = heatmap.points_ras(voxels + uniform(len(voxels), 3) - 0.5)
    # The smallest of independent exponential times with these rates comes next: the order of a
    # draw without replacement, all voxels at once.
    times = -torch.log1p(-uniform(len(voxels))) / chance
    if mask is not None:
        allowed = mask.to(heatmap.device).sample(points, "nearest") > 0.5
        points, times = points[allowed], times[allowed]
    depth = min(len(times), CANDIDATES_PER_POINT * count)
    queue = points[times.topk(depth, largest=False).indices]
    chosen = queue[:0]
    for block in queue.split(BLOCK):
        if len(chosen) >= count:
            break
        if len(chosen):
            block = block[distances(block, chosen).amin(1) >= min_distance_mm]
        chosen = torch.cat([chosen, block[_apart(block, min_distance_mm)]])
    return chosen[:count]


def _apart(points: torch.Tensor, distance_mm: float) -> torch.Tensor:
    """Greedy choice in order, as a mask: each point is taken unless a taken one is too near."""
    near = distances(points, points) < distance_mm
    earlier = near.tril(-1).float()
    open_ = torch.ones(len(points), device=points.device)
    taken = torch.zeros_like(open_)
    while bool(open_.any()):  # each pass settles the first open point at least, usually most
        ready = open_ * (earlier @ open_ == 0)
        taken += ready
        open_ *= (1 - ready) * (earlier @ ready == 0)
    return taken.bool()
