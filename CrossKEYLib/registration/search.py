"""Search over all orientations for the most promising poses of the iUS.

The encoder tolerates rotations of up to about 50 degrees, so the iUS is described in a set of
orientations that covers all others to within that. Describing all of it in each would take longer
than the rest of the registration. Here only a ball around most of its salient points is described,
with both images shrunk. The same network then sees more anatomy around each point, in a fraction of
the voxels. This is too coarse to locate the iUS, but shows which few orientations can be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config import EstimateConfig, MatchConfig, RegisterConfig, SearchConfig
from ..descriptors.dense import DenseEncoder
from ..estimation import DescriptorScore, estimate_rigid
from ..estimation.matching import match
from ..geometry import transform
from ..geometry.intensity import rescaled
from ..geometry.orientations import orientations
from ..geometry.transform import Matrix, nearest_rotation
from ..geometry.volume import Grid, Volume
from ..models.described import Described
from ..trust.assess import ELSEWHERE_MM, best_elsewhere
from .candidate import Candidate, Pair, Target

_CENTRES = 400  # points among which the centre of the ball is chosen
_BATCH = 4  # orientations described at once
_CLEAR_LEAD = 1.15  # ratio to the second best score from which on no other orientation is tried
_NEAREST = MatchConfig(method="nearest", rank="similarity")


@dataclass(frozen=True, eq=False)
class Pose:
    """A possible ``T_fixed_moving`` (4x4, RAS mm) and its descriptor score."""

    matrix: Matrix
    score: float


class OrientationSearch:
    """One iUS compared with one MRI in many orientations.

    Args:
        encoder: of both images.
        pair: the iUS, and the MRI with the described points that the search uses.
        config: number of orientations, and how coarsely they are described.
        estimate: of each pose.
        generator: source of randomness.
    """

    def __init__(
        self,
        encoder: DenseEncoder,
        pair: Pair,
        config: SearchConfig,
        estimate: EstimateConfig,
        generator: torch.Generator,
    ) -> None:
        self.encoder, self.config, self.generator = encoder, config, generator
        self.estimate = replace(estimate, hypotheses=config.hypotheses, transform="rigid")
        self.target = self._shrunk_target(pair.target)
        self.ius = _scaled(pair.ius, 1 / config.shrink).smoothed(encoder.config.spacing_mm)
        self.centre, self.points, self.block = self._ball(pair.points)

    def poses(self) -> list[Pose]:
        """Different poses, best score first; at most ``config.keep``.

        The best of all orientations are described again in the orientation that was found. More
        orientations are tried only while no pose leads clearly.
        """
        keep, found, done = self.config.keep, [], 0
        for count in self.config.orientations:
            tried = self.distinct(self._tried(orientations()[done:count], climb=False))[:keep]
            done = count
            nearest = [nearest_rotation(pose.matrix) for pose in tried]
            nearer = self._tried(nearest, climb=True)
            found = self.distinct([*found, *tried, *nearer])[:keep]
            if _leads(found):
                break
        return found

    def worth_comparing(self) -> list[Pose]:
        """The best of `poses` if it leads clearly, else the best ``config.compared`` of them."""
        poses = self.poses()
        return poses[: 1 if _leads(poses) else self.config.compared]

    def _shrunk_target(self, target: Target) -> Target:
        small = 1 / self.config.shrink
        points, mri = target.described.points, _scaled(rescaled(target.mri), small)
        descriptors = self.encoder.describe(mri, points * small, "mri")
        return Target.of(target.mri, Described(points, descriptors), target.grid.spacing_mm)

    def _ball(self, points: torch.Tensor) -> tuple[np.ndarray, torch.Tensor, int]:
        """Centre of the ball with most points (RAS mm), the first of the points in it, and the edge
        in voxels of the block that shows it: the smallest with enough points."""
        encoder, config = self.encoder.config, self.config
        centres = points[:_CENTRES]
        ways = torch.cdist(centres, points)
        best, within, block = 0, points[:0], config.block_voxels[0]
        for block in config.block_voxels:
            radius = (encoder.spacing_mm * (block - 1) / 2 - encoder.context_mm) * config.shrink
            inside = ways <= radius
            best = int(inside.sum(1).argmax())
            within = points[inside[best]]
            if len(within) >= config.block_share * len(points):
                break
        return centres[best].double().cpu().numpy(), within[: config.points], block

    def _tried(self, rotations: Sequence[np.ndarray] | np.ndarray, climb: bool) -> list[Pose]:
        """The best pose for each rotation ``[3, 3]`` or near it, where there is one; with ``climb``
        the descriptor score is maximised from there."""
        found = []
        for start in range(0, len(rotations), _BATCH):
            for descriptors in self._described(rotations[start : start + _BATCH]):
                pose = self._located(descriptors, climb)
                found += [] if pose is None else [pose]
        return found

    @torch.inference_mode()
    def _described(self, rotations: Sequence[np.ndarray] | np.ndarray) -> list[torch.Tensor]:
        """Descriptors ``[N, D]`` of the points, seen along the axes of each rotation."""
        small, size = 1 / self.config.shrink, self.block
        step = self.encoder.config.spacing_mm
        seen = []
        for rotation in rotations:
            axes = np.asarray(rotation).T
            first = small * self.centre - axes @ np.full(3, step * (size - 1) / 2)
            grid = Grid((size, size, size), transform.from_parts(step * axes, first))
            seen.append(Volume(self.ius.sample(grid.points(self.ius.device)), grid.ijk_to_ras))
        with torch.autocast(self.ius.device.type, torch.bfloat16):
            maps = self.encoder.maps(seen, "ius")
        return [features.sample(self.points * small) for features in maps]

    def _located(self, descriptors: torch.Tensor, climb: bool) -> Pose | None:
        fixed = self.target.described
        pairs = (fixed.descriptors, descriptors), (fixed.points, self.points)
        matches = match(*pairs[0], *pairs[1], _NEAREST)
        score = DescriptorScore(self.target.grid, self.points, descriptors)
        a, b = matches.indices.T
        matched = fixed.points[a], self.points[b]
        found = estimate_rigid(*matched, self.estimate, self.generator, matches.scores, score)
        if found.matrix is None:
            return None
        matrix = score.refined(found.matrix, self.generator) if climb else found.matrix
        return Pose(matrix, score.at(matrix))

    def distinct(self, poses: Sequence[Pose]) -> list[Pose]:
        """Best first, without those that lie near a better one."""
        kept: list[Pose] = []
        for pose in sorted(poses, key=lambda pose: pose.score, reverse=True):
            ways = (transform.rms_displacement_mm(self.points, pose.matrix, k.matrix) for k in kept)
            if all(way > ELSEWHERE_MM for way in ways):
                kept.append(pose)
        return kept


def _leads(poses: Sequence[Pose]) -> bool:
    """Whether the first of several poses has a clearly better score than the second."""
    return len(poses) > 1 and poses[0].score > _CLEAR_LEAD * poses[1].score


def stands_out(
    coarse: Candidate, lead: float, config: RegisterConfig, generator: torch.Generator
) -> bool:
    """Whether the score of a candidate is ``lead`` times that of any other position that is found
    in the orientation in which the iUS was described."""
    matrix, score = coarse.result.matrix, coarse.descriptor_score
    if matrix is None or score is None:
        return False
    a, b = coarse.matches.indices.T
    matched = coarse.pair.target.described.points[a], coarse.moving.points[b]
    again = replace(config.estimate, hypotheses=config.trust.hypotheses)
    view = coarse.moving.points
    return coarse.score > lead * best_elsewhere(
        *matched, matrix, view, again, config.trust, generator, score
    )


def _scaled(volume: Volume, factor: float) -> Volume:
    """The same samples with all lengths of the world times ``factor``."""
    return Volume(volume.array, np.diag([factor, factor, factor, 1.0]) @ volume.ijk_to_ras)
