"""Spots and tumours: their outlines against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from CrossKEYLib.synthesis.lesion import Lesion, draw_lesions, lesion_map

NO_WAVES = torch.zeros(0, 4)


def test_the_map_of_balls_against_its_closed_form():
    balls = [
        Lesion(torch.tensor([10.0, 20.0, -5.0]), 3.0, NO_WAVES),
        Lesion(torch.tensor([30.0, 20.0, -5.0]), 1.5, NO_WAVES),
    ]
    points = torch.tensor([[10.0, 20, -5], [13.0, 20, -5], [10.0, 20, 0], [30.0, 21.5, -5]])
    expected = [1 / (1 + math.exp(-2 * depth)) for depth in (3.0, 0.0, -2.0, 0.0)]
    assert torch.allclose(lesion_map(balls, points), torch.tensor(expected), atol=1e-5)
    assert float(lesion_map([], points).abs().max()) == 0


def test_the_core_of_a_tumour_is_its_share_of_the_radius():
    tumour = Lesion(torch.zeros(3), 10.0, NO_WAVES, core=0.4, is_tumour=True)
    at = torch.tensor([[0.0, 0, 0], [4.0, 0, 0], [7.0, 0, 0], [10.0, 0, 0], [16.0, 0, 0]])
    body, rim, core = tumour.parts(at)
    assert core.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0], abs=0.01)
    assert body.tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0], abs=0.01)
    assert int(rim.argmax()) == 3
    solid = Lesion(torch.zeros(3), 10.0, NO_WAVES, is_tumour=True).parts(at)[2]
    assert float(solid.max()) == 0


def test_drawn_ones_lie_at_the_places_and_have_the_sizes_they_should():
    places = torch.rand(50, 3) * 40
    drawn = draw_lesions(places, 6, 4, torch.Generator().manual_seed(0))
    assert [lesion.is_tumour for lesion in drawn] == [False] * 6 + [True] * 4
    for lesion in drawn:
        assert bool((places == lesion.centre).all(1).any())
        low, high = (6, 20) if lesion.is_tumour else (1, 6)
        assert low <= lesion.radius_mm <= high
        assert bool(lesion.inside(lesion.centre[None]) > 0.8)
    assert draw_lesions(places[:0], 3, 1, torch.Generator()) == []
