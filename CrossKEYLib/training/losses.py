"""Losses on unit-norm descriptors of the same N places in two images; pure functions.

Both take the places in millimetres, because two patches a few millimetres apart show nearly the
same anatomy: such a pair is neither the same place nor a fair negative, and is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def triplet(
    anchors: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, margin: float = 1.0
) -> torch.Tensor:
    """Mean of ``max(0, |a - p| - |a - n| + margin)``, both distances Euclidean and not squared.

    Args:
        anchors: ``[N, D]``.
        positives: ``[N, D]``, the same places in the other image.
        negatives: ``[N, D]``, or indices ``[N]`` into ``positives`` as `select_negatives` returns
            them, where -1 leaves the anchor out.
        margin: by how much a negative must be farther than the positive.

    Returns:
        A scalar; zero, with zero gradient, when no anchor has a negative.
    """
    if negatives.ndim == 1:
        kept = negatives >= 0
        others = positives[negatives.clamp_min(0)]
    else:
        kept = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        others = negatives
    losses = F.relu(_distance(anchors, positives) - _distance(anchors, others) + margin)
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp_min(1)


def select_negatives(
    similarity: torch.Tensor,
    points: torch.Tensor,
    exclusion_mm: float = 5.0,
    hardness: float = 1.0,
    generator: torch.Generator | None = None,
    far_mm: float = 48.0,
) -> torch.Tensor:
    """For every anchor, the place in the batch that serves as its negative.

    The choice moves from far away and random (``hardness`` 0) to the most similar place beyond
    the exclusion radius (``hardness`` 1).

    Args:
        similarity: ``[N, N]`` cosines, anchors along the rows.
        points: ``[N, 3]`` mm, in one frame.
        exclusion_mm: nearer places are never chosen, whatever the hardness.
        hardness: 0 to 1, see `curriculum.hardness`.
        generator: draws the random part.
        far_mm: beyond this distance all places are equally far.

    Returns:
        Indices ``[N]``; -1 where every other place lies within the exclusion radius.
    """
    distance = _point_distances(points, points)
    noise_device = generator.device if generator else similarity.device
    noise = torch.rand(similarity.shape, generator=generator, device=noise_device)
    easy = (distance / far_mm).clamp_max(1) + noise.to(similarity.device)
    score = (1 - hardness) * easy + hardness * similarity.detach().float()
    best = score.masked_fill(distance <= exclusion_mm, -torch.inf).max(1)
    return torch.where(best.values.isfinite(), best.indices, -1)


def info_nce(
    descriptors_fixed: torch.Tensor,
    descriptors_moving: torch.Tensor,
    points_fixed: torch.Tensor,
    temperature: float = 0.07,
    exclusion_mm: float = 5.0,
    extra_fixed: torch.Tensor | None = None,
    extra_points_fixed: torch.Tensor | None = None,
    extra_moving: torch.Tensor | None = None,
    extra_points_moving: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE; pairs within the exclusion radius are masked out of the denominator.

    Args:
        descriptors_fixed: ``[N, D]``.
        descriptors_moving: ``[N, D]``, the same places in the other image.
        points_fixed: ``[N, 3]`` mm, where these places are in the fixed image's frame.
        temperature: divides the cosines.
        exclusion_mm: nearer pairs, other than the true one, are no negatives.
        extra_fixed: ``[M, D]``, further negatives for the moving descriptors.
        extra_points_fixed: ``[M, 3]`` mm in the same frame; None, or NaN in a row, says that the
            negative comes from elsewhere (another patient) and is never excluded.
        extra_moving: ``[L, D]``, further negatives for the fixed descriptors.
        extra_points_moving: ``[L, 3]``, as ``extra_points_fixed``.

    Returns:
        The mean of both directions, a scalar.
    """
    if len(descriptors_fixed) == 0:
        return descriptors_fixed.sum() + descriptors_moving.sum()
    # Half precision would round the logits, so a caller's autocast must not reach them.
    with torch.autocast(descriptors_fixed.device.type, enabled=False):
        fixed, moving = descriptors_fixed.float(), descriptors_moving.float()
        points = points_fixed.float()
        near = _point_distances(points, points) <= exclusion_mm
        near.fill_diagonal_(False)
        logits = (fixed @ moving.T / temperature).masked_fill(near, -torch.inf)
        to_moving, to_fixed = [logits], [logits.T]
        if extra_moving is not None:
            cosines = fixed @ extra_moving.float().T
            near = _near_extra(points, extra_points_moving, cosines, exclusion_mm)
            to_moving.append((cosines / temperature).masked_fill(near, -torch.inf))
        if extra_fixed is not None:
            cosines = moving @ extra_fixed.float().T
            near = _near_extra(points, extra_points_fixed, cosines, exclusion_mm)
            to_fixed.append((cosines / temperature).masked_fill(near, -torch.inf))
        truth = torch.arange(len(fixed), device=fixed.device)
        losses = [F.cross_entropy(torch.cat(part, 1), truth) for part in (to_moving, to_fixed)]
    return (losses[0] + losses[1]) / 2


def position(
    descriptors_moving: torch.Tensor,
    descriptors_fixed: torch.Tensor,
    descriptors_around: torch.Tensor,
    temperature: float = 0.07,
) -> torch.Tensor:
    """InfoNCE of every place against those around it: the right one must be the most similar of
    its neighbourhood, so that similarity peaks there.

    Args:
        descriptors_moving: ``[N, D]``.
        descriptors_fixed: ``[N, D]``, the same places in the other image.
        descriptors_around: ``[N, K, D]``, places around these in that image.
        temperature: divides the cosines.

    Returns:
        The mean, a scalar.
    """
    with torch.autocast(descriptors_fixed.device.type, enabled=False):
        moving = descriptors_moving.float()
        own = (moving * descriptors_fixed.float()).sum(1, keepdim=True)
        around = torch.einsum("nd,nkd->nk", moving, descriptors_around.float())
        logits = torch.cat([own, around], 1) / temperature
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def _near_extra(
    points: torch.Tensor,
    extra_points: torch.Tensor | None,
    cosines: torch.Tensor,
    exclusion_mm: float,
) -> torch.Tensor:
    """Which of the extra negatives are too near, bool ``[N, M]``; NaN is near to nothing."""
    if extra_points is None:
        return torch.zeros_like(cosines, dtype=torch.bool)
    return _point_distances(points, extra_points.to(points)) <= exclusion_mm


def _point_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distances ``[N, M]`` in mm, without the rounding of the matrix-product formula."""
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of rows ``[N]``; its gradient stays finite where they coincide."""
    return (a - b).float().square().sum(1).clamp_min(1e-12).sqrt()
