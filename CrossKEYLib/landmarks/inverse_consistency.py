"""Inverse consistency of a registration: a check that needs no truth.

Registering an image to another and the other to the image are two searches with nothing in common
but the anatomy. Where they agree both are nearly always right (docs/rounds.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import Transform
from ..estimation import RigidResult
from ..geometry import transform
from ..geometry.foreground import shown_points
from ..geometry.transform import Matrix
from ..geometry.volume import Grid, Volume
from ..models.universal import UniversalModel
from .embedding_registration import register_embedded

REACH_MM = 20.0  # around where an image was laid, for the backward registration
SAMPLES = 500  # points over which both transforms are compared


@dataclass(frozen=True, eq=False)
class InverseConsistency:
    """A registration, and how far to trust it.

    Attributes:
        forward: the registration of the moving image to the fixed one.
        inverse_consistency_mm: mean distance between the forward and the inverted backward
            transform over what the moving image shows; None when one of them was not found.
    """

    forward: RigidResult
    inverse_consistency_mm: float | None

    @property
    def matrix(self) -> Matrix | None:
        """``T_fixed_moving``, 4x4, RAS mm; None when nothing was found."""
        return self.forward.matrix


def register_inverse_consistent(
    fixed: Volume,
    moving: Volume,
    model: UniversalModel,
    *,
    transform_kind: Transform = "rigid",
    seed: int = 0,
) -> InverseConsistency:
    """`register_embedded` forward, and backward from where the image was laid.

    Raises:
        InputError: an image is constant.
    """
    forward = register_embedded(fixed, moving, model, transform=transform_kind, seed=seed)
    if forward.matrix is None:
        return InverseConsistency(forward, None)
    near = _emptied_beyond(fixed, moving.moved(forward.matrix))
    again = register_embedded(moving, near, model, transform=transform_kind, seed=seed + 1)
    backward = again.matrix
    if backward is None:
        return InverseConsistency(forward, None)
    points = shown_points(moving, SAMPLES, seed)
    laid, inverted = (
        transform.apply(m, points) for m in (forward.matrix, transform.invert(backward))
    )
    return InverseConsistency(forward, float((laid - inverted).norm(dim=1).mean()))


def _emptied_beyond(fixed: Volume, laid: Volume) -> Volume:
    """The fixed image near the box of another: a sweep would hardly be found by all of a head."""
    near = laid.contains(Grid.of(fixed).points(fixed.device), -REACH_MM)
    return fixed.replaced(torch.where(near, fixed.array, fixed.array.amin()))
