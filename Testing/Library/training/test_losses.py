"""Losses against their closed forms; no place near the positive is ever a negative."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from CrossKEYLib.training.losses import info_nce, position, select_negatives, triplet


def unit(count: int, dims: int = 8, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, dims, generator=torch.Generator().manual_seed(seed)))


def circle(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_triplet_measures_both_distances_alike() -> None:
    # Chords of 60 and 90 degrees: 1 and sqrt(2). Squaring only one of them gives another number.
    loss = triplet(circle(0, 0), circle(60, 60), circle(90, 90), margin=1.0)
    assert loss.item() == pytest.approx(1 - math.sqrt(2) + 1, abs=1e-6)
    chord = 2 * math.sin(math.radians(10))
    loss = triplet(circle(0), circle(20), circle(20), margin=0.25)
    assert loss.item() == pytest.approx(0.25, abs=1e-6)
    assert triplet(circle(0), circle(20), circle(180), 0.25).item() == 0
    assert triplet(circle(0), circle(20), circle(0), 0.25).item() == pytest.approx(
        chord + 0.25, abs=2e-6
    )


def test_triplet_by_index_skips_anchors_without_a_negative() -> None:
    anchors, positives = circle(0, 10, 200), circle(5, 20, 230)
    by_index = triplet(anchors, positives, torch.tensor([2, -1, 0]))
    kept = [0, 2]
    explicit = triplet(anchors[kept], positives[kept], positives[[2, 0]])
    torch.testing.assert_close(by_index, explicit)


def test_triplet_has_finite_gradients_at_coincidence_and_with_no_negatives() -> None:
    anchors = unit(3).requires_grad_()
    triplet(anchors, anchors.detach(), torch.tensor([1, 2, 0])).backward()
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()
    anchors.grad = None
    nothing = triplet(anchors, unit(3), torch.full((3,), -1))
    nothing.backward()
    assert nothing.item() == 0
    assert anchors.grad is not None
    assert anchors.grad.abs().max() == 0


def line(*positions: float) -> torch.Tensor:
    return torch.tensor([[p, 0.0, 0.0] for p in positions])


def test_hardest_negative_lies_outside_the_exclusion_radius() -> None:
    points = line(0, 4, 6, 40)
    similarity = torch.tensor(
        [[1.0, 0.9, 0.5, 0.1], [0.9, 1.0, 0.8, 0.2], [0.5, 0.8, 1.0, 0.7], [0.1, 0.2, 0.7, 1.0]]
    )
    assert select_negatives(similarity, points, 5.0).tolist() == [2, 3, 3, 2]
    assert select_negatives(similarity, points, 1.0).tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize("hardness", [0.0, 0.3, 0.7, 1.0])
def test_no_hardness_chooses_within_the_radius_or_oneself(hardness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    points = 40 * torch.rand(200, 3, generator=generator)
    similarity = unit(200, seed=1) @ unit(200, seed=1).T
    chosen = select_negatives(similarity, points, 12.0, hardness, generator)
    assert (points - points[chosen]).norm(dim=1).min() > 12
    assert chosen.min() >= 0


def test_places_with_no_fair_negative_are_marked() -> None:
    similarity = torch.eye(3)
    assert select_negatives(similarity, line(0, 3, 4), 5.0).tolist() == [-1, -1, -1]
    assert select_negatives(similarity, line(0, 3, 7), 5.0, 0.0).tolist() == [2, -1, 0]


def test_negatives_get_more_similar_and_nearer_with_hardness() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 80 * torch.rand(300, 3, generator=generator)
    similarity = unit(300, seed=1) @ unit(300, seed=2).T
    chosen = [select_negatives(similarity, points, 5.0, h, generator) for h in (0.0, 0.5, 1.0)]
    hard = [similarity.gather(1, c[:, None]).mean().item() for c in chosen]
    far = [(points - points[c]).norm(dim=1).mean().item() for c in chosen]
    assert hard[0] < hard[1] < hard[2]
    assert far[0] > far[2]
    assert len(chosen[0].unique()) > 60  # random among the far ones, not always the same corner


def test_selection_follows_its_generator() -> None:
    points, similarity = 80 * torch.rand(50, 3), unit(50) @ unit(50, seed=3).T
    first, again, other = (
        select_negatives(similarity, points, 5.0, 0.0, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def expected_info_nce(logits: list[list[float]]) -> float:
    """Mean over rows of -log softmax at the first entry."""
    return sum(-row[0] + math.log(sum(math.exp(value) for value in row)) for row in logits) / len(
        logits
    )


def test_info_nce_leaves_near_places_out_of_the_denominator() -> None:
    fixed, moving = circle(0, 30, 100), circle(10, 50, 140)
    c = [[math.cos(math.radians(a - b)) / 0.5 for b in (10, 50, 140)] for a in (0, 30, 100)]
    # Places 0 and 1 are 3 mm apart, 2 is far: only 2 is a negative of 0 and 1.
    forward = [[c[0][0], c[0][2]], [c[1][1], c[1][2]], [c[2][2], c[2][0], c[2][1]]]
    backward = [[c[0][0], c[2][0]], [c[1][1], c[2][1]], [c[2][2], c[0][2], c[1][2]]]
    loss = info_nce(fixed, moving, line(0, 3, 50), temperature=0.5, exclusion_mm=5.0)
    expected = (expected_info_nce(forward) + expected_info_nce(backward)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_excluded_pairs_carry_no_gradient() -> None:
    moving = unit(3, seed=1).requires_grad_()
    fixed = unit(3)
    info_nce(fixed[:2], moving[[0, 2]], line(0, 3)).backward()
    # With every negative excluded the loss is zero and nothing is pushed.
    assert moving.grad is not None
    assert moving.grad.abs().max() == 0


def test_extra_negatives_count_unless_they_are_near() -> None:
    fixed, moving, extra = circle(0), circle(20), circle(60, 90)
    t = 0.5

    def logit(a: float, b: float) -> float:
        return math.cos(math.radians(a - b)) / t

    def loss(places: torch.Tensor | None) -> float:
        return info_nce(
            fixed, moving, line(0), t, 5.0, extra_moving=extra, extra_points_moving=places
        ).item()

    both = expected_info_nce([[logit(0, 20), logit(0, 60), logit(0, 90)]]) / 2
    second = expected_info_nce([[logit(0, 20), logit(0, 90)]]) / 2
    assert loss(None) == pytest.approx(both, abs=1e-6)
    assert loss(line(math.nan, math.nan)) == pytest.approx(both, abs=1e-6)
    assert loss(line(2, math.nan)) == pytest.approx(second, abs=1e-6)
    assert loss(line(2, 3)) == pytest.approx(0, abs=1e-6)


def test_info_nce_treats_both_images_alike() -> None:
    fixed, moving, extra = unit(5), unit(5, seed=1), unit(4, seed=2)
    points = 30 * torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    places = 30 * torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    one = info_nce(
        fixed, moving, points, extra_moving=extra, extra_points_moving=places, exclusion_mm=12
    )
    other = info_nce(
        moving, fixed, points, extra_fixed=extra, extra_points_fixed=places, exclusion_mm=12
    )
    torch.testing.assert_close(one, other)


def test_info_nce_keeps_its_precision_under_autocast() -> None:
    fixed, moving = unit(20, 64), unit(20, 64, seed=1)
    points = 100 * torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    plain = info_nce(fixed, moving, points)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(info_nce(fixed, moving, points), plain, rtol=0, atol=0)


def test_losses_of_an_empty_batch_are_zero() -> None:
    empty = torch.zeros(0, 8, requires_grad=True)
    assert info_nce(empty, empty, torch.zeros(0, 3)).item() == 0
    assert triplet(empty, empty, torch.zeros(0, dtype=torch.long)).item() == 0


def test_position_against_its_closed_form_in_float64() -> None:
    moving, fixed = unit(7, seed=1), unit(7, seed=2)
    around = F.normalize(torch.randn(7, 5, 8, generator=torch.Generator().manual_seed(3)), dim=2)
    own = (moving.double() * fixed.double()).sum(1) / 0.1
    others = (around.double() @ moving.double()[:, :, None])[:, :, 0] / 0.1
    wanted = (torch.logsumexp(torch.cat([own[:, None], others], 1), 1) - own).mean()
    assert position(moving, fixed, around, 0.1).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_position_falls_as_the_right_place_stands_out() -> None:
    around = circle(40, 60)[None]
    losses = [position(circle(0), circle(d), around).item() for d in (50, 30, 5)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.1
