"""There and back again: the error is that of a closed form, and failures have none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from phantoms.known import known
from phantoms.training import texture
from phantoms.universal import OffsetModel

from CrossKEYLib.estimation import RigidResult
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.landmarks import inverse_consistency
from CrossKEYLib.landmarks.inverse_consistency import register_inverse_consistent

IMAGE = texture(48, grain=2.5)
MOTION = transform.random_rigid(np.random.default_rng(3), 6.0, 5.0, IMAGE.centre_ras)
MOVED = IMAGE.moved(transform.invert(MOTION))
NONE = torch.zeros(0, dtype=torch.bool)


@pytest.fixture
def finds(monkeypatch):
    """Lets the two registrations find given transforms, None for a failure; the volumes that they
    were given come back."""
    seen: list[tuple[Volume, Volume]] = []

    def prepare(*matrices: Matrix | None) -> list[tuple[Volume, Volume]]:
        left: Iterator[Matrix | None] = iter(matrices)

        def register(fixed: Volume, moving: Volume, *rest: object, **named: object) -> RigidResult:
            seen.append((fixed, moving))
            matrix = next(left)
            if matrix is None:
                return RigidResult.failure("nothing agrees", NONE)
            return RigidResult(matrix, NONE, 0.0, 10)

        monkeypatch.setattr(inverse_consistency, "register_embedded", register)
        return seen

    return prepare


def test_the_error_is_how_far_the_way_back_ends_from_the_way_there(finds):
    """The inverse moved by (2, -3, 6) mm is 7 mm off, wherever the points lie."""
    shift = transform.from_parts(np.eye(3), [2.0, -3.0, 6.0])
    finds(MOTION, transform.invert(shift @ MOTION))
    found = register_inverse_consistent(IMAGE, MOVED, OffsetModel())
    assert np.array_equal(found.matrix, MOTION)
    assert known(found.inverse_consistency_mm) == pytest.approx(7.0, abs=1e-4)


def test_a_way_that_was_not_found_has_no_error(finds):
    finds(None)
    nowhere = register_inverse_consistent(IMAGE, MOVED, OffsetModel())
    assert (nowhere.matrix, nowhere.inverse_consistency_mm) == (None, None)
    finds(MOTION, None)
    one_way = register_inverse_consistent(IMAGE, MOVED, OffsetModel())
    assert np.array_equal(one_way.matrix, MOTION)
    assert one_way.inverse_consistency_mm is None


def test_the_way_back_is_sought_near_where_the_image_was_laid(finds):
    """A small image would hardly be found in all of a head."""
    small = texture(12, seed=5)
    small = small.moved(transform.from_parts(np.eye(3), IMAGE.centre_ras - small.centre_ras))
    wide = texture(96, seed=6)
    wide = wide.moved(transform.from_parts(np.eye(3), IMAGE.centre_ras - wide.centre_ras))
    seen = finds(np.eye(4), np.eye(4))
    register_inverse_consistent(wide, small, OffsetModel())
    fixed, moving = seen[1]
    assert fixed is small
    kept = moving.array > moving.array.amin()
    distance = (moving.points_ras(kept.nonzero().float()) - torch.as_tensor(small.centre_ras)).abs()
    assert inverse_consistency.REACH_MM < distance.max() < 6 + inverse_consistency.REACH_MM + 2


def test_two_images_of_one_patient_agree_both_ways():
    found = register_inverse_consistent(IMAGE, MOVED, OffsetModel())
    assert known(found.inverse_consistency_mm) < 1.0
    corners = torch.as_tensor(IMAGE.corners_ras())
    assert found.matrix is not None
    off = transform.apply(found.matrix @ transform.invert(MOTION), corners) - corners
    assert off.norm(dim=1).mean() < 1.0
