"""How far a registration can be trusted, assessed from its matches, descriptors and images alone.

Seven questions, each answered by a number:

- Do more matches agree than chance would bring about?
- Do the descriptors agree better at this transform than at any other?
- Do the tissue borders of both images agree better here than 4 mm away?
- Does the MRI explain the brightness of the ultrasound better here than 4 mm away?
- Do independent halves of the matches give the same transform?
- Are the inliers spread widely enough to determine a rotation?
- How large is the expected error over the field of view?

`confidence.py` turns these numbers into a confidence and a verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config import EstimateConfig, TrustConfig
from ..errors import EstimationError
from ..estimation import DescriptorScore, RigidResult, estimate_rigid, locate
from ..estimation.ransac import MIN_INLIERS, independence
from ..geometry.transform import Matrix, apply, perturbations_about, rms_displacement_mm
from .confidence import ACCEPTED, REFUSED, TrustModel
from .tentative import Tentative

_BLOCK_RADII = 2.0  # edge of the blocks of matches that are kept together, in cluster radii
_WIDE_REACH = 3.0  # largest residual that counts for the deformation, in inlier thresholds
_RIVALS = 600  # other positions that are scored
_CLIMBS = 3  # of them, from which the score is optimised
_RIVAL_SPREAD_MM, _RIVAL_SPREAD_DEG = 15.0, 20.0  # standard deviations per axis
ELSEWHERE_MM = 12.0  # RMS displacement that makes another position
_NEIGHBOUR_RADII = 3.0  # distance up to which neighbours deform together, in cluster radii


@dataclass(frozen=True)
class Trust:
    """The figures of a registration, and the verdict. None stands for a figure that could not be
    determined; without a transform these are all but the number of inliers.

    Attributes:
        n_inliers: matches within the inlier threshold.
        independent_inliers: effective number of independent inliers; neighbours count jointly.
        chance_inliers: mean number of inliers that the same search finds in shuffled matches.
        chance_deviation: standard deviation of that number.
        chance_ratio: independent inliers over those that chance gives (mean + 2 deviations).
        score_ratio: the descriptor score over the best score of any other position. The given
            transform is not refined for it; None where only keypoints were described.
        mind_margin: by how much self-similarities of the images agree better here than 4 mm away
            (`mind_margin`); None where too little of the ultrasound lies on the MRI.
        lc2_margin: how much more of the iUS's brightness the MRI explains here than 4 mm away
            (`lc2_margin`); None likewise.
        spread_mm: second largest standard deviation of the inliers; small for a cluster or a line.
        inlier_rms_mm: root mean square residual of the inliers.
        agreement_mm: RMS displacement over the field of view between two transforms, each
            estimated without a start from one half of the matches; median over splits. None if
            most halves gave no transform.
        deformation_mm: RMS deviation from the transform that neighbouring matches have in common:
            the tissue has deformed, or the images show different anatomy.
        raw_error_mm: noise of the fit over the field of view, half the disagreement of halves, and
            deformation, in quadrature; None where the halves gave no transform.
        predicted_tre_mm: the mean error over the field of view is at most this in 90 % of right
            results: the raw error and `TrustModel.hidden_mm`, in quadrature.
        confidence: 0 to 1, see `confidence.TrustModel`.
        verdict: "accepted"; "doubtful", to be used only after a person has checked it; "refused".
        reasons: sentences that say why it is not accepted; empty when it is.
    """

    n_inliers: int
    independent_inliers: float | None
    chance_inliers: float | None
    chance_deviation: float | None
    chance_ratio: float | None
    score_ratio: float | None
    mind_margin: float | None
    lc2_margin: float | None
    spread_mm: float | None
    inlier_rms_mm: float | None
    agreement_mm: float | None
    deformation_mm: float | None
    raw_error_mm: float | None
    predicted_tre_mm: float | None
    confidence: float
    verdict: str
    reasons: list[str]

    @property
    def accepted(self) -> bool:
        """Whether the transform may be used without a check by a person."""
        return self.verdict == ACCEPTED


def assess(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    result: RigidResult,
    fov_points: torch.Tensor,
    config: EstimateConfig,
    trust: TrustConfig,
    generator: torch.Generator,
    descriptor_score: DescriptorScore | None = None,
    *,
    mind_margin: float | None,
    lc2_margin: float | None,
    tentative: Tentative | None = None,
) -> Trust:
    """Assess a result by its matches and by their descriptors.

    Args:
        points_fixed: ``[K, 3]`` RAS mm, the matches given to the estimation.
        points_moving: ``[K, 3]`` RAS mm, paired row by row.
        result: of ``estimate_rigid`` from these matches.
        fov_points: ``[P, 3]`` RAS mm on the moving side, samples of the field of view.
        config: the settings of that estimation.
        trust: repeats, and the model of the trust.
        generator: the same state gives the same verdict.
        descriptor_score: of both images, if the estimation used it. The score of the transform
            is then compared with the best score of any other position.
        mind_margin, lc2_margin: see `Trust`.
        tentative: the matches from which these were chosen; the same matches when missing.

    Raises:
        EstimationError: no field-of-view points.
    """
    _check_fov(fov_points)
    if result.matrix is None:
        return _refused(f"No transform was found: {result.reason}.")
    again = replace(config, hypotheses=min(trust.hypotheses, config.hypotheses))
    fixed_in, moving_in = (p[result.inliers].cpu().double() for p in (points_fixed, points_moving))
    weights = independence(fixed_in, moving_in, config.cluster_radius_mm)
    worth = float(weights.sum())
    if tentative is None:
        none = points_fixed.new_zeros(len(points_fixed))
        tentative = Tentative(points_fixed, points_moving, none, None)
    chance, chance_worth = _chance(tentative, again, trust, generator)
    ratio = worth / float(chance_worth.mean() + 2 * chance_worth.std(correction=0))
    score_ratio = None
    if descriptor_score is not None:
        # The transform itself, not the optimum near it: if the refinement left it, that is a doubt.
        reached = descriptor_score.at(result.matrix)
        # The chosen matches support this position; the others may support another one.
        best = slice(len(points_fixed))
        ends = tentative.points_fixed[best], tentative.points_moving[best]
        matched = (*ends, result.matrix, fov_points)
        elsewhere = best_elsewhere(*matched, again, trust, generator, descriptor_score)
        score_ratio = max(reached, 0.0) / max(elsewhere, 1e-6)
    agreement = _agreement(tentative, fov_points, again, trust, generator, descriptor_score)
    spread = _spread(moving_in, weights)
    deformation = _deformation(result.matrix, points_fixed, points_moving, config)
    noise = _fit_error(result.matrix, fixed_in, moving_in, weights, fov_points, config.transform)
    raw_error = None if agreement is None else math.hypot(noise, agreement / 2, deformation)
    model = TrustModel.load(trust.model)
    numbers: dict[str, float | None] = {
        "independent_inliers": worth,
        "chance_inliers": float(chance.mean()),
        "chance_deviation": float(chance.std(correction=0)),
        "chance_ratio": ratio,
        "score_ratio": score_ratio,
        "mind_margin": mind_margin,
        "lc2_margin": lc2_margin,
        "spread_mm": spread,
        "inlier_rms_mm": result.rms_mm,
        "agreement_mm": agreement,
        "deformation_mm": deformation,
        "raw_error_mm": raw_error,
        "predicted_tre_mm": model.predicted_mm(raw_error),
    }
    confidence = model.confidence(numbers)
    return Trust(
        n_inliers=result.n_inliers,
        **numbers,
        confidence=confidence,
        verdict=model.verdict(confidence),
        reasons=model.reasons(numbers),
    )


def _check_fov(fov_points: torch.Tensor) -> None:
    if fov_points.ndim != 2 or fov_points.shape[1] != 3 or not len(fov_points):
        raise EstimationError(
            f"fov_points [P, 3] with P > 0 expected, got {list(fov_points.shape)}; "
            "sample the ultrasound's field of view"
        )


def _refused(reason: str) -> Trust:
    return Trust(
        n_inliers=0,
        independent_inliers=None,
        chance_inliers=None,
        chance_deviation=None,
        chance_ratio=None,
        score_ratio=None,
        mind_margin=None,
        lc2_margin=None,
        spread_mm=None,
        inlier_rms_mm=None,
        agreement_mm=None,
        deformation_mm=None,
        raw_error_mm=None,
        predicted_tre_mm=None,
        confidence=0.0,
        verdict=REFUSED,
        reasons=[reason],
    )


def _blocks(
    points_moving: torch.Tensor, edge_mm: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cubic cells of a randomly placed grid: corners ``[B, 3]`` mm, block of each point ``[K]``."""
    offset = torch.rand(3, generator=generator, device=generator.device).to(points_moving)
    cells = torch.floor(points_moving / edge_mm + offset)
    corners, block = torch.unique(cells, dim=0, return_inverse=True)
    return corners * edge_mm, block


def _chance(
    tentative: Tentative,
    config: EstimateConfig,
    trust: TrustConfig,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the same search finds in matches that have no common motion: inliers, and independent
    inliers, one entry per repeat.

    Blocks of moving points are permuted while their fixed ends stay. This destroys the common
    motion and keeps the common errors of neighbours, from which chance can profit.
    """
    counts, worths = [], []
    edge = _BLOCK_RADII * config.cluster_radius_mm
    for _ in range(trust.chance_repeats):
        corners, block = _blocks(tentative.points_moving, edge, generator)
        order = torch.randperm(len(corners), generator=generator, device=generator.device)
        moved = (corners[order.to(block.device)] - corners)[block]
        fixed, shuffled = tentative.chosen(points_moving=tentative.points_moving + moved)
        found = locate(fixed, shuffled, config, generator)
        pair = fixed[found.inliers], shuffled[found.inliers]
        # A search that fails may have found one match less than it needs.
        counts.append(found.n_inliers if found else MIN_INLIERS - 1)
        worth = float(independence(*pair, config.cluster_radius_mm).sum()) if found else counts[-1]
        worths.append(worth)
    return torch.tensor(counts).double(), torch.tensor(worths).double()


def best_elsewhere(
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    matrix: Matrix,
    fov_points: torch.Tensor,
    config: EstimateConfig,
    trust: TrustConfig,
    generator: torch.Generator,
    descriptor_score: DescriptorScore,
) -> float:
    """Best descriptor score at any other position: the search that found ``matrix`` is repeated
    with the neighbourhood of ``matrix`` excluded, and a wide random search around it is added.
    Arguments as in `assess`; ``matrix`` is ``T_fixed_moving`` (4x4, RAS mm)."""

    def scorer(matrices: torch.Tensor) -> torch.Tensor:
        far = _apart(matrix, matrices.cpu().double(), fov_points) > ELSEWHERE_MM
        return torch.where(
            far.to(descriptor_score.points.device), descriptor_score(matrices), -torch.inf
        )

    centre = fov_points.double().mean(0).cpu().numpy()
    noise = torch.randn(_RIVALS, 6, generator=generator, dtype=torch.float64).numpy()
    tries = matrix @ perturbations_about(centre, noise, _RIVAL_SPREAD_MM, _RIVAL_SPREAD_DEG)
    scores = scorer(torch.from_numpy(tries))
    starts = [tries[i] for i in scores.topk(_CLIMBS).indices.tolist()]
    rigid = replace(config, transform="rigid")
    for _ in range(trust.rival_searches):
        other = estimate_rigid(points_fixed, points_moving, rigid, generator, scorer=scorer).matrix
        starts += [] if other is None else [other]
    # The optimisation may lead back to ``matrix``; then only its start is another position.
    ends = starts + [descriptor_score.refined(start, generator) for start in starts]
    return max(0.0, float(scorer(torch.from_numpy(np.stack(ends))).max()))


def _apart(matrix: Matrix, others: torch.Tensor, fov_points: torch.Tensor) -> torch.Tensor:
    """RMS displacement ``[H]`` (mm) over the field of view from a transform to others."""
    fov = fov_points.cpu().double()
    there = fov @ others[:, :3, :3].mT + others[:, None, :3, 3]
    return (there - apply(matrix, fov)).square().sum(2).mean(1).sqrt()


def _agreement(
    tentative: Tentative,
    fov_points: torch.Tensor,
    config: EstimateConfig,
    trust: TrustConfig,
    generator: torch.Generator,
    descriptor_score: DescriptorScore | None,
) -> float | None:
    """Median over random splits of the RMS displacement between two transforms, each estimated
    from the matches and descriptors in every other block. With blocks, neighbours never support
    both halves. The variance is four times that of the error of all matches: each half has twice
    the variance, and two halves are compared. None if most splits gave no transform."""
    displacements = []
    edge = _BLOCK_RADII * config.cluster_radius_mm
    for _ in range(trust.splits):
        points = tentative.points_moving
        offset = torch.rand(3, generator=generator, device=generator.device).to(points)
        side = _even_block(points, edge, offset)
        sides = (
            None if descriptor_score is None else _even_block(descriptor_score.points, edge, offset)
        )
        found = []
        for even in (True, False):
            part = None if descriptor_score is None else descriptor_score.part(sides == even)
            half = tentative.chosen(side == even)
            found.append(locate(*half, config, generator, descriptor_score=part))
        a, b = (result.matrix for result in found)
        if a is None or b is None:
            displacements.append(math.inf)
            continue
        displacements.append(rms_displacement_mm(fov_points.cpu().double(), a, b))
    median = sorted(displacements)[len(displacements) // 2]
    return None if math.isinf(median) else median


def _even_block(points: torch.Tensor, edge_mm: float, offset: torch.Tensor) -> torch.Tensor:
    """Bool ``[K]``: which points lie in every other cube of a 3D checkerboard."""
    return torch.floor(points / edge_mm + offset).sum(1) % 2 == 0


def _spread(points: torch.Tensor, weights: torch.Tensor) -> float:
    share = weights / weights.sum()
    centred = points - share @ points
    variances = torch.linalg.eigvalsh(centred.T @ (share[:, None] * centred))
    return float(variances[1].clamp_min(0).sqrt())


def _deformation(
    matrix: Matrix, points_fixed: torch.Tensor, points_moving: torch.Tensor, config: EstimateConfig
) -> float:
    """RMS length in mm of the smooth part of the residuals.

    Noise and wrong matches are independent between neighbours that are not duplicates. The mean
    inner product of their residuals is therefore the variance of what they have in common.
    """
    fixed, moving = points_fixed.cpu().double(), points_moving.cpu().double()
    residuals = apply(matrix, moving) - fixed
    reach = _WIDE_REACH * config.inlier_threshold_mm
    robust = (1 - residuals.square().sum(1) / reach**2).clamp_min(0).square()
    near = robust > 0
    residuals, robust, moving = residuals[near], robust[near], moving[near]
    distance = torch.cdist(moving, moving) / config.cluster_radius_mm
    pair = ((distance > 1) & (distance < _NEIGHBOUR_RADII)) * robust[:, None] * robust[None]
    common = (pair * (residuals @ residuals.T)).sum() / pair.sum().clamp_min(1e-12)
    return math.sqrt(max(0.0, float(common)))


def _fit_error(
    matrix: Matrix,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weights: torch.Tensor,
    fov_points: torch.Tensor,
    kind: str,
) -> float:
    """Expected error (mm, mean over the field of view) of a least-squares fit from noise in the
    inliers, by its covariance. The ``weights`` sum to the number of independent inliers, which are
    float64 on the CPU."""
    moved = apply(matrix, moving)
    centre = weights @ moved / weights.sum()
    design = _design(moved - centre, kind)
    freedom = max(1.0, 3 * float(weights.sum()) - design.shape[2])
    variance = float(weights @ (moved - fixed).square().sum(1)) / freedom
    information = torch.einsum("n,nip,niq->pq", weights, design, design)
    ridge = 1e-9 * information.diagonal().mean() * torch.eye(len(information)).double()
    covariance = variance * torch.linalg.inv(information + ridge)
    at = _design(apply(matrix, fov_points.cpu().double()) - centre, kind)
    return float(torch.einsum("nip,pq,niq->n", at, covariance, at).clamp_min(0).sqrt().mean())


def _design(points: torch.Tensor, kind: str) -> torch.Tensor:
    """Derivatives ``[N, 3, P]`` of points ``[N, 3]`` by the parameters: rigid or affine."""
    identity = torch.eye(3, dtype=points.dtype).expand(len(points), 3, 3)
    if kind == "affine":
        linear = torch.einsum("nij,nk->nijk", identity, points).flatten(2)
    else:
        linear = torch.linalg.cross(identity, points[:, None, :].expand(-1, 3, -1)).mT
    return torch.cat([linear, identity], dim=2)
