"""Registration by SIFT3D keypoints, for models that describe patches as the published network does.

A dense encoder describes all points of the MRI in one pass. A patch network processes every patch
on its own, which is fast enough for keypoints only. SIFT3D keypoints of both images are described
along the RAS axes and paired by mutual nearest neighbours with Lowe's ratio, as published (Morozov,
Dorent and Haouchine, IEEE TMI 2026, arXiv 2507.18551).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ..config import KeypointConfig, RegisterConfig
from ..errors import InputError
from ..estimation import locate
from ..estimation.matching import match
from ..geometry.intensity import rescaled
from ..geometry.transform import apply, from_parts, invert, nearest_axes
from ..geometry.volume import Grid, Volume
from ..keypoints.sift3d import detect
from ..models.described import Described
from ..models.patient import Model
from .candidate import Candidate, Pair

MIN_KEYPOINTS = 10  # twice what an estimate needs
MOST_VOXELS = 14_000_000  # processed together: a whole head at 0.5 mm would take 2.5 GB
OVERLAP_VOXELS = 24  # the blur of the coarsest octave hardly reaches farther
MIN_SLAB_VOXELS = 32
_NAMES = {"mri": "MRI", "ius": "iUS"}


@dataclass(frozen=True, eq=False)
class KeypointMatcher:
    """Describes keypoints of both images and pairs them. It does so once, because a patch network
    is too slow to describe the iUS in several orientations.

    Attributes:
        model: describes patches.
        config: of the registration.
        stage: measures the time of a stage, by its name.
        progress: called with the name of the present step.
    """

    model: Model
    config: RegisterConfig
    stage: Callable[[str], AbstractContextManager[None]]
    progress: Callable[[str], None]

    def describe(
        self, scaled: Volume, modality: str, rotation: np.ndarray, brain: Volume | None = None
    ) -> Described:
        """Keypoints of an image, described.

        Args:
            scaled: to [0, 1], 0 where it is empty.
            modality: "mri" or "ius".
            rotation: 3x3 that orients the image as the MRI is along RAS.
            brain: mask of the MRI's brain.

        Raises:
            InputError: too few keypoints.
        """
        name = _NAMES[modality]
        with self.stage("keypoints"):
            points = keypoints_of(scaled, self.config.keypoints, name, brain)
        stage = f"{name} descriptors"
        with self.stage(stage):
            report = counted(stage, self.progress)
            return self.model.describe(scaled, points, modality, rotation.T, report)

    def candidate(self, pair: Pair, rotation: np.ndarray, generator: torch.Generator) -> Candidate:
        """The iUS's keypoints paired with those of the MRI, and the transform that they lead to."""
        fixed = pair.target.described
        moving = self.describe(rescaled(pair.raw), "ius", rotation)
        with self.stage("matching"):
            matches = match(
                fixed.descriptors,
                moving.descriptors,
                fixed.points,
                moving.points,
                self.config.keypoints.match,
                pair.prior,
            )
        with self.stage("estimation"):
            a, b = matches.indices.T
            paired = fixed.points[a], moving.points[b]
            found = locate(*paired, self.config.estimate, generator, matches.scores)
        return Candidate(pair, rotation, moving, matches, matches, None, found)


def keypoints_of(
    volume: Volume, config: KeypointConfig, name: str, brain: Volume | None = None
) -> torch.Tensor:
    """SIFT3D keypoints, strongest first; ``[N, 3]`` RAS mm.

    Args:
        volume: scaled to [0, 1], 0 where it is empty.
        config: spacing, thresholds and number.
        name: of the image, for messages.
        brain: mask; keypoints are detected only in it.

    Raises:
        InputError: fewer than `MIN_KEYPOINTS`.
    """
    shown = volume if brain is None else brain
    axes = nearest_axes(volume.ijk_to_ras)
    grid = Grid.around(shown.corners_ras(), config.spacing_mm, rotation=axes)
    points, scores = [], []
    for slab, own in slabs(grid):
        part = volume.resample(slab)
        if float(part.array.amax()) == float(part.array.amin()):
            continue  # outside of the image
        found = detect(part, config.sift, brain, config.spacing_mm)
        kept = own(found.points)
        points.append(found.points[kept])
        scores.append(found.scores[kept])
    points = torch.cat(points or [volume.array.new_zeros(0, 3)])
    if scores:
        points = points[torch.cat(scores).argsort(descending=True, stable=True)]
    points = points[: config.sift.max_keypoints]
    if len(points) < MIN_KEYPOINTS:
        raise InputError(
            f"the {name} shows {len(points)} keypoints, at least {MIN_KEYPOINTS} are needed; "
            "give the whole image, or a model that describes every place"
        )
    return points


def slabs(
    grid: Grid, most: int = MOST_VOXELS
) -> list[tuple[Grid, Callable[[torch.Tensor], torch.Tensor]]]:
    """Parts of a grid along its longest axis, which overlap by `OVERLAP_VOXELS` on either side.

    Args:
        grid: of the whole image.
        most: approximate number of voxels of a part; detection takes about 80 bytes for each.

    Returns:
        The grid of each part, and a function that tells which of points ``[N, 3]`` (RAS mm) are
        the part's own, bool ``[N]``: every point of the image belongs to one part.
    """
    axis = int(np.argmax(grid.shape))  # of k, j, i
    length, area = grid.shape[axis], int(np.prod(grid.shape)) // grid.shape[axis]
    step = max(MIN_SLAB_VOXELS, most // area - 2 * OVERLAP_VOXELS)
    count = 1 if length * area <= most else -(-length // step)
    into, column = invert(grid.ijk_to_ras), 2 - axis
    edges = [round(length * n / count) for n in range(count + 1)]
    parts = []
    for low, high in pairwise(edges):
        start, stop = max(0, low - OVERLAP_VOXELS), min(length, high + OVERLAP_VOXELS)
        shape = list(grid.shape)
        shape[axis] = stop - start
        offset = np.zeros(3)
        offset[column] = start
        part = Grid((shape[0], shape[1], shape[2]), grid.ijk_to_ras @ from_parts(np.eye(3), offset))
        first = -np.inf if low == 0 else low - 0.5
        last = np.inf if high == length else high - 0.5

        def own(points: torch.Tensor, first: float = first, last: float = last) -> torch.Tensor:
            along = apply(into, points)[:, column]
            return (along >= first) & (along < last)

        parts.append((part, own))
    return parts


def counted(stage: str, progress: Callable[[str], None]) -> Callable[[int, int], None]:
    """Reports how many patches of a stage are described, after every tenth of them."""
    told = -1

    def report(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(1, total)
        if tenth > told:
            told = tenth
            progress(f"{stage}, {done} of {total}")

    return report
