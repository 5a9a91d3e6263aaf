"""Global rigid estimation from matches, most of which are wrong; no start is needed.

Triplets of matches are drawn. They are kept if both triangles are wide and have the same edge
lengths, which a rigid motion preserves. The remaining ones are solved in closed form and scored
against all matches. The best are optimised locally (Chum et al. 2003), and a robust fit ends the
search. Neighbouring matches have common errors, so each is weighted by the inverse of the local
density of matches (:func:`independence`): a hundred matches of one structure count as one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..config import EstimateConfig
from ..errors import EstimationError
from ..geometry.transform import Matrix
from .kabsch import affine, kabsch, kabsch_of_sums, products
from .result import RigidResult
from .triplets import draw_triplets, sampling_table, solve_triplets

_TILE_ELEMENTS = 2_000_000  # squared residuals held at once; small enough for the CPU's cache
_OPTIMISED = 50  # hypotheses that are locally optimised
_JUDGED = 150  # the same where a scorer decides between them
_OPTIMISATION_STEPS = 5
# Scores [H] of transforms [H, 4, 4] (T_fixed_moving, RAS mm), higher is better.
Scorer = Callable[[torch.Tensor], torch.Tensor]

MIN_INLIERS = 5  # three always fit; at least two more are needed as evidence
_MIN_AFFINE = 12  # three times as many as determine an affine transform
_FIRST_CUTOFF = 2.5  # first cutoff of the robust weights, in inlier thresholds
_CUTOFF = 1.5  # final cutoff, likewise
_NEGLIGIBLE = -30.0  # the exponential of this is negligible against one


def estimate_rigid(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    config: EstimateConfig,
    generator: torch.Generator,
    scores: torch.Tensor | None = None,
    scorer: Scorer | None = None,
) -> RigidResult:
    """Find ``T_fixed_moving`` from matches, rigid, or affine started from the rigid one.

    Args:
        points_fixed: ``[K, 3]`` RAS mm. points_moving: ``[K, 3]`` RAS mm, paired row by row.
        config: thresholds, number of hypotheses, kind of transform. generator: source of
        randomness; the same state gives the same result. scores: ``[K]``, higher is better. The
        best match is drawn three times as often as the worst,
            linearly in rank. The scores do not weight the support.
        scorer: decides between the best hypotheses in place of the support. If rigid, the transform
            that it prefers is returned without a fit to the matches.

    Returns:
        The transform, or a false result with the reason.

    Raises:
        EstimationError: shapes that do not belong together.
    """
    if points_fixed.shape != points_moving.shape or points_fixed.shape[1:] != (3,):
        raise EstimationError(
            f"paired points [K, 3] expected, got {list(points_fixed.shape)} (fixed) and "
            f"{list(points_moving.shape)} (moving)"
        )
    none = torch.zeros(len(points_fixed), dtype=torch.bool, device=points_fixed.device)
    if len(points_fixed) < MIN_INLIERS:
        return RigidResult.failure(
            f"only {len(points_fixed)} matches, at least {MIN_INLIERS} are needed", none
        )
    # Float32 resolves centred coordinates to micrometres.
    centre_fixed, centre_moving = points_fixed.mean(0), points_moving.mean(0)
    fixed, moving = (points_fixed - centre_fixed).float(), (points_moving - centre_moving).float()
    weights = independence(fixed, moving, config.cluster_radius_mm)

    triplets = draw_triplets(fixed, moving, sampling_table(weights, scores), config, generator)
    if not len(triplets):
        return RigidResult.failure(
            "no three matches agree in their distances, so no rigid motion explains them", none
        )
    matrices = solve_triplets(fixed[triplets], moving[triplets])
    support = _support(matrices, fixed, moving, weights, config.inlier_threshold_mm)
    best = torch.topk(support, min(_JUDGED if scorer else _OPTIMISED, len(support))).indices
    # What remains is small, and not every device has float64.
    fixed, moving, weights = (x.cpu().double() for x in (fixed, moving, weights))
    threshold = config.inlier_threshold_mm
    matrices = _optimise(matrices[best].cpu().double(), fixed, moving, weights, threshold)
    centre_fixed, centre_moving = centre_fixed.cpu().double(), centre_moving.cpu().double()
    if scorer is None:
        votes = _vote(matrices, fixed, moving, weights, threshold)
    else:
        votes = scorer(_uncentred(matrices, centre_fixed, centre_moving)).cpu()
    matrix = matrices[torch.argmax(votes)]
    if scorer is None or config.transform == "affine":
        try:
            matrix = _refine(matrix, fixed, moving, weights, config)
        except EstimationError:
            return RigidResult.failure("the matches that agree are too few or on one line", none)
    matrix = _uncentred(matrix, centre_fixed, centre_moving)
    return result_of(matrix.numpy(), points_fixed, points_moving, threshold)


def result_of(
    matrix: Matrix,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    threshold_mm: float,
) -> RigidResult:
    """The result of a given ``T_fixed_moving`` for paired points ``[K, 3]`` (RAS mm)."""
    residuals = _residuals(
        torch.from_numpy(matrix), points_fixed.cpu().double(), points_moving.cpu().double()
    )
    inliers = residuals <= threshold_mm
    count = int(inliers.sum())
    on_device = inliers.to(points_fixed.device)
    if count < MIN_INLIERS:
        return RigidResult.failure(
            f"no more than {count} matches agree on one position", torch.zeros_like(on_device)
        )
    rms = float(residuals[inliers].square().mean().sqrt())
    return RigidResult(matrix, on_device, rms, count)


def affine_from(
    matrix: Matrix, points_fixed: torch.Tensor, points_moving: torch.Tensor, config: EstimateConfig
) -> RigidResult:
    """A robust affine fit to paired points ``[K, 3]`` (RAS mm), started from a rigid transform."""
    fixed, moving = points_fixed.cpu().double(), points_moving.cpu().double()
    centre_fixed, centre_moving = fixed.mean(0), moving.mean(0)
    start = _uncentred(torch.from_numpy(matrix), -centre_fixed, -centre_moving)
    fixed, moving = fixed - centre_fixed, moving - centre_moving
    weights = independence(fixed, moving, config.cluster_radius_mm)
    try:
        fitted = _refine(start, fixed, moving, weights, config)
    except EstimationError:
        none = torch.zeros(len(fixed), dtype=torch.bool, device=points_fixed.device)
        return RigidResult.failure("too few matches agree to fit an affine transform", none)
    whole = _uncentred(fitted, centre_fixed, centre_moving).numpy()
    return result_of(whole, points_fixed, points_moving, config.inlier_threshold_mm)


def _uncentred(
    matrices: torch.Tensor, centre_fixed: torch.Tensor, centre_moving: torch.Tensor
) -> torch.Tensor:
    """Transforms ``[..., 4, 4]`` of centred points, for the points as they are."""
    whole = matrices.clone()
    whole[..., :3, 3] += centre_fixed - matrices[..., :3, :3] @ centre_moving
    return whole


def independence(
    points_fixed: torch.Tensor, points_moving: torch.Tensor, radius_mm: float
) -> torch.Tensor:
    """Weight ``[K]`` in (0, 1] of each match as an independent observation.

    The inverse of the number of matches (itself included) whose two ends both lie nearby, under a
    Gaussian of ``radius_mm`` on the six coordinates. The sum is an effective number of matches.
    """
    ends = torch.cat([points_fixed, points_moving], dim=1) / radius_mm
    ends = ends - ends.mean(0)
    half = 0.5 * ends.square().sum(1)
    step = max(1, _TILE_ELEMENTS // max(1, len(ends)))
    density = []
    for part, own in zip(ends.split(step), half.split(step), strict=True):
        exponent = torch.addmm(half, part, ends.T, beta=-1).sub_(own[:, None])
        # Processors are slow with denormal numbers, which far matches would otherwise give.
        density.append(exponent.clamp_min_(_NEGLIGIBLE).exp_().sum(1))
    return 1 / torch.cat(density).clamp_min(1)


def _support(
    matrices: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: torch.Tensor,
    threshold_mm: float,
) -> torch.Tensor:
    """Truncated quadratic support ``[H]`` (MSAC, Torr and Zisserman 2000) by all matches."""
    pairs = _pair_terms(fixed, moving).T
    step = max(1, _TILE_ELEMENTS // len(fixed))
    lost = [
        (h @ pairs).clamp_(0, threshold_mm**2) @ weights
        for h in _transform_terms(matrices.float()).split(step)
    ]
    return (weights.sum() - torch.cat(lost) / threshold_mm**2).nan_to_num(-1.0)


def _pair_terms(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """``[K, 17]``. The squared residual of a rigid transform is linear in the products of
    coordinates, so one matrix product with `_transform_terms` gives the squared residuals of all
    matches under all hypotheses."""
    lengths = (fixed.square() + moving.square()).sum(1, keepdim=True)
    return torch.cat([products(fixed, moving), lengths], dim=1)


def _transform_terms(matrices: torch.Tensor) -> torch.Tensor:
    """``[H, 17]`` of rigid transforms ``[H, 4, 4]``; see `_pair_terms`."""
    rotation, shift = matrices[:, :3, :3], matrices[:, :3, 3]
    return torch.cat(
        [
            -2 * rotation.flatten(1),
            -2 * shift,
            2 * (rotation.mT @ shift[..., None])[..., 0],
            shift.square().sum(1, keepdim=True),
            torch.ones_like(shift[:, :1]),
        ],
        dim=1,
    )


def _residuals(matrices: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Lengths in mm, ``[..., K]``, of ``p_fixed - T p_moving`` for ``T [..., 4, 4]``."""
    moved = moving @ matrices[..., :3, :3].mT + matrices[..., None, :3, 3]
    return (moved - fixed).norm(dim=-1)


def _tukey(squared_residuals: torch.Tensor, cutoff_mm: float) -> torch.Tensor:
    """Weights that fall smoothly from 1 to 0 at the cutoff (Beaton and Tukey 1974)."""
    return (1 - squared_residuals / cutoff_mm**2).clamp_min(0).square()


def _optimise(
    matrices: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: torch.Tensor,
    threshold_mm: float,
) -> torch.Tensor:
    """Refit a batch of rigid hypotheses a few times to their own inliers; ``[H, 4, 4]``."""
    pairs, added = _pair_terms(fixed, moving).T, products(fixed, moving)
    for _ in range(_OPTIMISATION_STEPS):
        squared = (_transform_terms(matrices) @ pairs).clamp_min_(0)
        refitted = kabsch_of_sums(weights * _tukey(squared, 2 * threshold_mm) @ added)
        matrices = torch.where(refitted.isfinite(), refitted, matrices)
    return matrices


def _vote(
    matrices: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: torch.Tensor,
    threshold_mm: float,
) -> torch.Tensor:
    """Support of each transform ``[H]``; a match counts quadratically less up to the threshold."""
    shares = 1 - (_residuals(matrices, fixed, moving) / threshold_mm).square()
    return shares.clamp_min(0) @ weights


def _refine(
    matrix: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: torch.Tensor,
    config: EstimateConfig,
) -> torch.Tensor:
    """Iteratively reweighted least squares with a cutoff that shrinks to its final value.

    Raises:
        EstimationError: the inliers do not determine the transform.
    """
    steps = max(1, config.refinement_iterations)
    solvers = [kabsch] if config.transform == "rigid" else [kabsch, affine]
    for solve in solvers:
        for step in range(steps):
            # The second half runs with the final cutoff, to convergence.
            reach = _CUTOFF + (_FIRST_CUTOFF - _CUTOFF) * max(0.0, 1 - 2 * step / steps)
            squared = _residuals(matrix, fixed, moving).square()
            robust = weights * _tukey(squared, reach * config.inlier_threshold_mm)
            if solve is affine and int((robust > 0).sum()) < _MIN_AFFINE:
                raise EstimationError(f"affine: at least {_MIN_AFFINE} agreeing matches expected")
            matrix = solve(fixed, moving, robust)
    return matrix
