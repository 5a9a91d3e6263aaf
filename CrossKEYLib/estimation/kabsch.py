"""Closed-form weighted least squares between paired points: rigid (Kabsch) and affine."""

from __future__ import annotations

import torch

from ..errors import EstimationError

# A cloud counts as a line below 1e-4 of its length in width, or below 3e-5 mm (float32 rounding).
_RELATIVE_RANK = 1e-8
_ABSOLUTE_RANK_MM2 = 1e-9


def kabsch(
    points_fixed: torch.Tensor, points_moving: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The rigid ``T_fixed_moving`` that minimises ``sum w |p_fixed - T p_moving|^2``.

    Always a proper rotation (Kabsch 1976, reflection case by Umeyama 1991). Computed in float64;
    leading dimensions are a batch.

    Args:
        points_fixed: ``[..., N, 3]`` RAS mm.
        points_moving: ``[..., N, 3]`` RAS mm, paired row by row.
        weights: ``[..., N]``, not negative; equal when None.

    Returns:
        ``[..., 4, 4]`` float64. In a batch a degenerate item is NaN throughout.

    Raises:
        EstimationError: a single problem with fewer than three points, or points on a line.
    """
    fixed, moving, share, centre_fixed, centre_moving = _centred(
        points_fixed, points_moving, weights
    )
    covariance = torch.einsum("...n,...ni,...nj->...ij", share, fixed, moving)
    rotation, bad = _rotation(covariance)
    _refuse(bad, "three points that are not on one line", share)
    return _assemble(rotation, centre_fixed, centre_moving, bad)


def products(points_fixed: torch.Tensor, points_moving: torch.Tensor) -> torch.Tensor:
    """``[N, 16]``: the products of each pair of points ``[N, 3]`` that `kabsch_of_sums` needs."""
    outer = (points_fixed[:, :, None] * points_moving[:, None, :]).flatten(1)
    return torch.cat([outer, points_fixed, points_moving, torch.ones_like(outer[:, :1])], dim=1)


def kabsch_of_sums(sums: torch.Tensor) -> torch.Tensor:
    """`kabsch` for a batch of weights of the same points, by one matrix product in place of a pass
    over all points for each item.

    Args:
        sums: ``[B, 16]`` = ``weights [B, N] @ products(...)``, float64, of points near the origin
            (the covariance is a difference of large numbers elsewhere).

    Returns:
        ``[B, 4, 4]`` float64; a degenerate item is NaN throughout.
    """
    cross, fixed, moving, _ = (sums / sums[:, 15:]).split([9, 3, 3, 1], dim=1)
    covariance = cross.view(-1, 3, 3) - fixed[:, :, None] * moving[:, None, :]
    rotation, bad = _rotation(covariance)
    return _assemble(rotation, fixed, moving, bad)


def _rotation(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Proper rotations ``[..., 3, 3]`` from covariances ``[..., 3, 3]``, and whether a covariance
    does not determine one."""
    bad = ~torch.isfinite(covariance).all(-1).all(-1)
    u, s, vt = torch.linalg.svd(torch.where(bad[..., None, None], 0.0, covariance))
    flip = torch.ones_like(s)
    flip[..., 2] = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)
    bad |= s[..., 1] <= torch.clamp_min(_RELATIVE_RANK * s[..., 0], _ABSOLUTE_RANK_MM2)
    return (u * flip[..., None, :]) @ vt, bad


def affine(
    points_fixed: torch.Tensor, points_moving: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The affine ``T_fixed_moving`` that minimises ``sum w |p_fixed - T p_moving|^2``.

    Arguments, result and batching are those of :func:`kabsch`.

    Raises:
        EstimationError: a single problem with fewer than four points, or points in one plane.
    """
    fixed, moving, share, centre_fixed, centre_moving = _centred(
        points_fixed, points_moving, weights
    )
    cross = torch.einsum("...n,...ni,...nj->...ij", share, fixed, moving)
    spread = torch.einsum("...n,...ni,...nj->...ij", share, moving, moving)
    bad = ~(torch.isfinite(spread) & torch.isfinite(cross)).all(-1).all(-1)
    identity = torch.eye(3, dtype=spread.dtype, device=spread.device)
    eigenvalues = torch.linalg.eigvalsh(torch.where(bad[..., None, None], identity, spread))
    floor = torch.clamp_min(_RELATIVE_RANK * eigenvalues[..., 2], _ABSOLUTE_RANK_MM2)
    bad |= eigenvalues[..., 0] <= floor
    _refuse(bad, "four points that are not in one plane", share)
    spread = torch.where(bad[..., None, None], identity, spread)
    linear = torch.linalg.solve(spread, cross.mT).mT  # symmetric
    return _assemble(linear, centre_fixed, centre_moving, bad)


def _centred(
    points_fixed: torch.Tensor, points_moving: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Float64 points about their weighted centres, weights of sum 1, and the two centres."""
    if points_fixed.shape[-2:] != points_moving.shape[-2:] or points_fixed.shape[-1] != 3:
        raise EstimationError(
            f"paired points [..., N, 3] expected, got {list(points_fixed.shape)} (fixed) and "
            f"{list(points_moving.shape)} (moving)"
        )
    fixed, moving = _float64(points_fixed), _float64(points_moving)
    share = fixed.new_ones(fixed.shape[:-1]) if weights is None else _float64(weights)
    share = share / share.sum(-1, keepdim=True)
    centre_fixed = torch.einsum("...n,...ni->...i", share, fixed)
    centre_moving = torch.einsum("...n,...ni->...i", share, moving)
    fixed, moving = fixed - centre_fixed[..., None, :], moving - centre_moving[..., None, :]
    return fixed, moving, share, centre_fixed, centre_moving


def _float64(values: torch.Tensor) -> torch.Tensor:
    # Apple's accelerator has no float64; these problems are small, so the CPU solves them.
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)


def _refuse(bad: torch.Tensor, needed: str, share: torch.Tensor) -> None:
    if bad.ndim == 0 and bool(bad):
        used = int((share > 0).sum())
        raise EstimationError(
            f"at least {needed} expected, got {used} points that do not fix the transform; "
            "provide more, wider spread matches"
        )


def _assemble(
    linear: torch.Tensor, centre_fixed: torch.Tensor, centre_moving: torch.Tensor, bad: torch.Tensor
) -> torch.Tensor:
    matrix = linear.new_zeros(*bad.shape, 4, 4)
    matrix[..., :3, :3] = linear
    matrix[..., :3, 3] = centre_fixed - (linear @ centre_moving[..., None])[..., 0]
    matrix[..., 3, 3] = 1.0
    return torch.where(bad[..., None, None], torch.nan, matrix)
