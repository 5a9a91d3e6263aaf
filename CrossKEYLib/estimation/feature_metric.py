"""Feature-metric refinement: direct alignment of two dense feature maps over the field of view.

Matches join described points, so their accuracy is limited by the grid of these points. Here the
six parameters of a rigid motion are optimised until the interpolated features agree best: robust
Gauss-Newton with Levenberg's damping on ``f_fixed(T p) - f_moving(p)``, from blurred maps to sharp
ones (Lindenberger et al., arXiv 2108.08291).

An optimum always exists, also where the images do not belong together, so it proves nothing. The
motion is therefore fitted to one half of the field of view and must raise the agreement in the
other half. Any feature map can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..config import FeatureMetricConfig
from ..descriptors.dense import FeatureMap
from ..geometry import transform
from ..geometry.filters import gaussian
from ..geometry.transform import Matrix

_STEP_CELLS = 0.5  # over which features are differentiated
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-6, 1e3
_AGREED = 0.3  # residual of unit vectors (cosine 0.955) below which residuals count as equal
_SETTLED_MM = 0.01  # shorter steps end a level
_CURVATURE_STEP_MM = 0.5
_FEWEST_BLOCKS = 8  # in each half, for a meaningful standard error


@dataclass(frozen=True, eq=False)
class FeatureFit:
    """Outcome of a refinement; false if it did not improve the agreement. Then the start is kept.

    Attributes:
        matrix: ``T_fixed_moving``, 4x4, RAS mm: refined, or the start if that is not better.
        fitted: the optimum of the features, whether it was taken or not.
        improved: whether the half of the field of view that was not fitted agrees better.
        gain: mean rise of the cosine similarity there, for the fit that was tried.
        gain_error: its standard error over blocks, whose errors are independent.
        moved_mm: RMS displacement of the points by the fit that was tried.
    """

    matrix: Matrix
    fitted: Matrix
    improved: bool
    gain: float
    gain_error: float
    moved_mm: float
    _judged: Callable[[], tuple[np.ndarray, float]] = field(repr=False)

    def __bool__(self) -> bool:
        return self.improved

    @property
    def curvature(self) -> np.ndarray:
        """``[6, 6]`` second derivatives of the mean robust cost at ``matrix``, with respect to a
        shift and a rotation vector about the points' middle times their radius, in mm."""
        return self._certainty[0]

    @property
    def uncertainty_mm(self) -> float:
        """RMS standard deviation of the positions of the points, from the curvature of the
        objective and the scatter of its gradient over blocks; infinite where the features do not
        determine a direction."""
        return self._certainty[1]

    @cached_property
    def _certainty(self) -> tuple[np.ndarray, float]:
        return self._judged()  # takes longer than the fit, and few callers need it


def refine_features(
    fixed: FeatureMap,
    moving: FeatureMap,
    points: torch.Tensor,
    initial: Matrix,
    config: FeatureMetricConfig | None = None,
    proven: FeatureFit | None = None,
) -> FeatureFit:
    """Improve a rigid transform by the features of both images.

    Args:
        fixed: map of the fixed image around the points as ``initial`` moves them. moving: map of
        the moving image, in approximately the orientation of the fixed one. points: ``[N, 3]`` RAS
        mm in the moving image, over all of its field of view. initial: ``T_fixed_moving`` within
        some millimetres and degrees. config: levels, robustness, and the limit of an improvement.
        proven: the fit that led to ``initial``, from maps made before that step. Its test on
        held-out
            points is not repeated, and all points are fitted.
    """
    config = config or FeatureMetricConfig()
    problem = _Problem(fixed, moving, points, config)
    block, fitted = _halves(points, config.block_mm)
    if proven is not None:
        best = problem.solved(initial, torch.ones_like(fitted), last_only=True)
        judged = partial(problem.uncertainty, best, block)
        return replace(proven, matrix=best, fitted=best, _judged=judged)
    tried = problem.solved(initial, fitted)
    before, after = (problem.cosines(matrix)[~fitted] for matrix in (initial, tried))
    gain, error = _mean_over_blocks(after - before, block[~fitted])
    moved = transform.rms_displacement_mm(points.double(), initial, tried)
    improved = gain > config.significance * error and moved <= config.reach_mm
    best = problem.solved(tried, torch.ones_like(fitted), last_only=True)
    matrix = best if improved else initial
    judged = partial(problem.uncertainty, matrix, block)
    return FeatureFit(matrix, best, improved, gain, error, moved, judged)


class _Problem:
    """Both maps and the points. A step is a shift and a rotation vector times a radius, in mm."""

    def __init__(
        self,
        fixed: FeatureMap,
        moving: FeatureMap,
        points: torch.Tensor,
        config: FeatureMetricConfig,
    ) -> None:
        self.config, self.points = config, points
        self.centre = points.double().mean(0).cpu().numpy()
        away = points - points.mean(0)
        self.radius = max(float(away.square().sum(1).mean().sqrt()), 1.0)
        self.levels = []
        for blur_mm in config.levels_mm:
            there, here = _blurred(fixed, blur_mm), _blurred(moving, blur_mm)
            self.levels.append((there, here.sample(points)))

    def solved(self, matrix: Matrix, chosen: torch.Tensor, last_only: bool = False) -> Matrix:
        """Fit the chosen points, bool ``[N]``, on each level in turn, or on the last alone."""
        for fixed, wanted in self.levels[-1:] if last_only else self.levels:
            matrix = self._climbed(matrix, fixed, wanted[chosen], self.points[chosen])
        return matrix

    def _climbed(
        self, matrix: Matrix, fixed: FeatureMap, wanted: torch.Tensor, points: torch.Tensor
    ) -> Matrix:
        scale = self._scale(fixed, wanted, transform.apply(matrix, points))
        cost = partial(self._cost, fixed, wanted, points, scale)
        damping, best = _FIRST_DAMPING, cost(matrix)
        for _ in range(self.config.iterations):
            gradients, hessian = self._derivatives(matrix, fixed, wanted, points, scale)
            step = np.linalg.solve(
                hessian + damping * (np.diag(np.diag(hessian)) + 1e-12 * np.eye(6)),
                -gradients.mean(0),
            )
            tried = self.stepped(matrix, step)
            value = cost(tried)
            if value < best:
                matrix, best = tried, value
                damping = max(damping / 4, _LEAST_DAMPING)
                if np.linalg.norm(step) < _SETTLED_MM:
                    break
            elif (damping := damping * 8) > _MOST_DAMPING:
                break
        return matrix

    def stepped(self, matrix: Matrix, step: np.ndarray) -> Matrix:
        """``matrix`` after a small motion ``[6]`` (mm) of the fixed world about the middle."""
        turn = Rotation.from_rotvec(step[3:] / self.radius).as_matrix()
        middle = matrix[:3, :3] @ self.centre + matrix[:3, 3]
        return transform.about(middle, turn, step[:3]) @ matrix

    def _scale(self, fixed: FeatureMap, wanted: torch.Tensor, places: torch.Tensor) -> float:
        """Residual at which the weight of a point is a quarter: the median at the start of a
        level."""
        return max(float(_squared(fixed.sample(places), wanted).median().sqrt()), _AGREED)

    def _cost(
        self,
        fixed: FeatureMap,
        wanted: torch.Tensor,
        points: torch.Tensor,
        scale: float,
        matrix: Matrix,
    ) -> float:
        """Mean Geman-McClure cost r^2 / (r^2 + s^2)."""
        squared = _squared(fixed.sample(transform.apply(matrix, points)), wanted)
        return float((squared / (squared + scale**2)).double().mean())

    def _derivatives(
        self,
        matrix: Matrix,
        fixed: FeatureMap,
        wanted: torch.Tensor,
        points: torch.Tensor,
        scale: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of each point's cost ``[N, 6]``, and Gauss-Newton's mean hessian ``[6, 6]``."""
        places = transform.apply(matrix, points)
        found = fixed.sample(places)
        step = _STEP_CELLS * float(np.linalg.norm(fixed.ijk_to_ras[:3, 0]))
        shifts = step * torch.eye(3, device=places.device)
        slopes = torch.stack(
            [(fixed.sample(places + s) - fixed.sample(places - s)) / (2 * step) for s in shifts], 2
        )  # [N, D, 3]
        squared = _squared(found, wanted)
        weight = 2 * scale**2 / (squared + scale**2).square()  # slope of the cost over r
        pull = torch.einsum("nd,nda->na", found - wanted, slopes)
        bend = torch.einsum("nda,ndb->nab", slopes, slopes)
        middle = transform.apply(matrix, torch.as_tensor(self.centre[None])).to(places)
        ways = self._ways(places - middle)
        gradient = weight[:, None] * torch.einsum("na,nac->nc", pull, ways)
        hessian = weight[:, None, None] * (ways.mT @ bend @ ways)
        return gradient.double().cpu().numpy(), hessian.mean(0).double().cpu().numpy()

    def _ways(self, away: torch.Tensor) -> torch.Tensor:
        """``[N, 3, 6]``: derivatives of positions ``away`` mm from the middle by each parameter."""
        x, y, z = (away / self.radius).unbind(1)
        zero = torch.zeros_like(x)
        turned = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], 1).view(-1, 3, 3)
        return torch.cat([torch.eye(3).to(away).expand(len(away), 3, 3), turned], 2)

    def cosines(self, matrix: Matrix) -> torch.Tensor:
        """Cosine similarity ``[N]`` of the features of each point with those where it lands."""
        fixed, wanted = self.levels[-1]
        return (fixed.sample(transform.apply(matrix, self.points)) * wanted).sum(1)

    def uncertainty(self, matrix: Matrix, block: torch.Tensor) -> tuple[np.ndarray, float]:
        """Curvature ``[6, 6]`` and what follows from it for the points, see `FeatureFit`.

        The sandwich estimator of Liang and Zeger (Biometrika 73(1), 1986). Neighbouring points
        share their errors, so gradients are summed by block. The curvature is taken by differences
        of the gradient, because Gauss-Newton's is too large where features disagree.
        """
        fixed, wanted = self.levels[-1]
        scale = self._scale(fixed, wanted, transform.apply(matrix, self.points))

        def gradients(step: np.ndarray) -> np.ndarray:
            stepped = self.stepped(matrix, step)
            return self._derivatives(stepped, fixed, wanted, self.points, scale)[0]

        steps = _CURVATURE_STEP_MM * np.eye(6)
        columns = [gradients(s).mean(0) - gradients(-s).mean(0) for s in steps]
        curvature = np.array(columns) / (2 * _CURVATURE_STEP_MM)
        curvature = (curvature + curvature.T) / 2
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            return curvature, np.inf
        own = gradients(np.zeros(6))
        sums = np.zeros((int(block.max()) + 1, 6))
        np.add.at(sums, block.cpu().numpy(), own - own.mean(0))
        inverse = np.linalg.inv(curvature)
        covariance = inverse @ (sums.T @ sums / len(own) ** 2) @ inverse
        places = transform.apply(matrix, self.points.double())
        ways = self._ways(places - places.mean(0)).cpu().numpy()
        spread = np.einsum("nac,cd,nad->n", ways, covariance, ways)
        return curvature, float(np.sqrt(spread.mean()))


def _blurred(features: FeatureMap, blur_mm: float) -> FeatureMap:
    cell_mm = float(np.linalg.norm(features.ijk_to_ras[:3, 0]))
    blurred = gaussian(features.array.float(), blur_mm / cell_mm)
    # All features of a voxel lie together in memory: reading single voxels is twice as fast.
    together = blurred[None].contiguous(memory_format=torch.channels_last_3d)[0]
    return FeatureMap(together, features.ijk_to_ras)


def _squared(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared residual ``[N]`` of unit vectors; outside of the map 2, the value of unrelated
    ones."""
    return 2 - 2 * (found * wanted).sum(1)


def _halves(points: torch.Tensor, block_mm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of the cube ``[N]`` of each point, and which points lie in every other cube."""
    cubes = torch.floor((points - points.amin(0)) / block_mm).long()
    _, number = torch.unique(cubes, dim=0, return_inverse=True)
    return number, cubes.sum(1) % 2 == 0


def _mean_over_blocks(values: torch.Tensor, block: torch.Tensor) -> tuple[float, float]:
    """Mean over blocks and its standard error; 0 and infinity if there are too few blocks."""
    _, number, count = torch.unique(block, return_inverse=True, return_counts=True)
    if len(count) < _FEWEST_BLOCKS:
        return 0.0, np.inf
    sums = torch.zeros(len(count), dtype=torch.float64, device=values.device)
    sums.index_add_(0, number, values.double())
    mean = float(sums.sum() / len(values))
    error = (sums - mean * count).square().sum().sqrt() / len(values)
    return mean, float(error)
