"""MIND-SSC against its definition, worked out place by place in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CrossKEYLib.descriptors.mind import self_similarity

NEIGHBOURS = [(0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0)]


def defined(image: np.ndarray, at: tuple[int, int, int], radius: int, reach: int) -> np.ndarray:
    """Mean squared differences of the twelve pairs of patches around one voxel."""

    def patch(offset: tuple[int, int, int]) -> np.ndarray:
        low = [a + reach * o - radius for a, o in zip(at, offset, strict=True)]
        k, j, i = (slice(n, n + 2 * radius + 1) for n in low)
        return image[k, j, i]

    return np.array(
        [
            np.mean((patch(NEIGHBOURS[m]) - patch(NEIGHBOURS[n])) ** 2)
            for m in range(6)
            for n in range(m + 1, 6)
            if m // 2 != n // 2
        ]
    )


@pytest.mark.parametrize(("radius", "reach"), [(1, 1), (2, 1), (1, 2)])
def test_it_is_what_is_defined(radius: int, reach: int) -> None:
    image = torch.rand(14, 15, 16, generator=torch.Generator().manual_seed(0))
    found = self_similarity(image, radius, reach)
    assert found.shape == (12, 14, 15, 16)
    for at in ((6, 7, 8), (5, 5, 5), (8, 9, 10)):
        distances = defined(image.double().numpy(), at, radius, reach)
        distances = distances - distances.min()
        expected = np.exp(-distances / distances.mean())
        np.testing.assert_allclose(found[:, at[0], at[1], at[2]], expected, atol=1e-5)


def test_tones_turned_over_change_nothing() -> None:
    image = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(self_similarity(image), self_similarity(5 - 3 * image), atol=1e-4)


def test_a_constant_image_says_nothing_and_stays_finite() -> None:
    assert bool((self_similarity(torch.ones(8, 8, 8)) == 1).all())
