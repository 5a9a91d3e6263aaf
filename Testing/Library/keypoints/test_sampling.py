"""Which points are described."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.keypoints.sampling import fixed_points, moving_points


def test_fixed_points_fill_the_salient_place_at_their_spacing() -> None:
    saliency = torch.zeros(40, 40, 40)
    saliency[10:31, 10:31, 10:31] = 1
    points = fixed_points(Volume(saliency, np.eye(4)), spacing_mm=2.0)
    assert len(points) == pytest.approx(11**3, rel=0.3)
    assert float((points - 20).abs().max()) <= 11
    assert float(torch.cdist(points, points).fill_diagonal_(9).min()) == pytest.approx(2, abs=0.01)


def test_moving_points_prefer_bright_structure_and_stay_inside() -> None:
    array = torch.zeros(40, 40, 40)
    array[5:35, 5:35, 5:35] = 0.2
    array[:, :, 19:22][array[:, :, 19:22] > 0] = 1.0
    ius = Volume(array, np.diag([-1.0, -1, 1, 1]))
    points = moving_points(ius, 1000, torch.Generator().manual_seed(0))
    assert points.shape == (1000, 3)
    assert (ius.sample(points) > 0).all()
    on_line = ((points[:, 0] + 20).abs() <= 2).float().mean()
    assert on_line > 0.6  # the line fills a tenth of the view


def test_moving_points_depend_on_the_generator_alone() -> None:
    ius = Volume(torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0)), np.eye(4))
    a, b, c = (moving_points(ius, 50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_empty_ultrasound_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        moving_points(Volume(torch.zeros(9, 9, 9), np.eye(4)), 5, torch.Generator())
