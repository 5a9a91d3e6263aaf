"""Where a point goes, told by pairs around it: a robust local affine fit, batched over points."""

from __future__ import annotations

import torch

from ..config import FitConfig
from ..estimation import kabsch

_FIRST_REACH = 4.0  # of the inlier distance; the fit starts with this tolerance


def local_affine(
    queries: torch.Tensor,
    here: torch.Tensor,
    there: torch.Tensor,
    weights: torch.Tensor,
    config: FitConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predict each query from its own weighted pairs. Outliers among the pairs get small weights.

    Args:
        queries: ``[N, 3]``; here, there: ``[N, S, 3]`` pairs; weights: ``[N, S]``.

    Returns:
        Predicted ``[N, 3]``, final weights ``[N, S]``, weighted RMS residual ``[N]``.
    """
    shares, moved, points = weights, there, queries
    for step in range(config.iterations):
        moved, points = _affine(queries, here, there, shares, config.stiffness_mm2)
        residual = (moved - there).norm(dim=2)
        done = min(1.0, 2 * step / config.iterations)
        reach = config.inlier_mm * (_FIRST_REACH + (1 - _FIRST_REACH) * done)
        shares = weights / (1 + (residual / reach).square()).square()
    residual = (moved - there).square().sum(2)
    spread = ((shares * residual).sum(1) / shares.sum(1).clamp_min(1e-9)).sqrt()
    return points, shares, spread


def _affine(
    queries: torch.Tensor,
    here: torch.Tensor,
    there: torch.Tensor,
    weights: torch.Tensor,
    stiffness_mm2: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rigid fit, and on top of it the affine change that the pairs support: with few pairs, or
    pairs in one plane, the ridge leaves it rigid. Moves the pairs and the queries."""
    kept = weights.double() + 1e-9
    rigid = kabsch(there, here, kept).to(queries)
    rigid = torch.where(rigid.isfinite(), rigid, torch.eye(4).to(queries))
    turned, aim = (
        x @ rigid[:, :3, :3].mT + rigid[:, None, :3, 3] for x in (here, queries[:, None])
    )
    share = (kept / kept.sum(1, keepdim=True)).to(queries)[..., None]
    middle, goal = (share * turned).sum(1, keepdim=True), (share * there).sum(1, keepdim=True)
    centred, rest = turned - middle, there - goal - (turned - middle)
    total = weights.sum(1).clamp_min(1e-9)[:, None, None]
    spread = (share * centred).mT @ centred * total
    ridge = stiffness_mm2 * torch.eye(3).to(queries)
    change = torch.linalg.solve(spread + ridge, (share * centred).mT @ rest * total)
    return centred + centred @ change + goal, ((aim - middle) + (aim - middle) @ change + goal)[
        :, 0
    ]
