"""Losses of the universal embedding against plain loops in double precision and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from CrossKEYLib.training.universal.losses import appearance, prototypes, prototypical


def unit(count: int, dims: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dims, generator=generator, dtype=torch.float64))


def plain_prototypical(features: torch.Tensor, labels: torch.Tensor, t: float) -> float:
    """The formula of the paper, term by term."""
    classes = sorted({int(c) for c in labels} - {0})
    total = 0.0
    for c in classes:
        members = [x for x, label in zip(features, labels, strict=True) if label == c]
        p = sum(members) / len(members)
        denominator = sum(math.exp(float(p @ x) / t) for x in features)
        total += sum(math.log(math.exp(float(p @ x) / t) / denominator) for x in members) / len(
            members
        )
    return -total / len(classes)


def plain_appearance(queries, keys, candidates, near, others, hard, diverse, t) -> float:
    total = 0.0
    for n, query in enumerate(queries):
        positive = math.exp(float(query @ keys[n]) / t)
        own = [(float(query @ x), m) for m, x in enumerate(candidates) if not near[n, m]]
        chosen = [s for s, _ in sorted(own, reverse=True)[:hard]]
        chosen += [s for s, m in own if m < diverse]
        chosen += [float(query @ x) for x in others]
        total -= math.log(positive / (positive + sum(math.exp(s / t) for s in chosen)))
    return total / len(queries)


def test_prototypical_is_the_formula():
    features = unit(40)
    labels = torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(1))
    found = prototypical(features, labels, 0.1)
    assert found.item() == pytest.approx(plain_prototypical(features, labels, 0.1), rel=1e-9)
    single = prototypical(features.float(), labels, 0.1)
    assert single.item() == pytest.approx(found.item(), rel=1e-5)


def test_prototypical_closed_forms():
    same = torch.tensor([[1.0, 0.0]]).expand(12, 2)
    labels = torch.tensor([0, 1, 2] * 4)
    assert prototypical(same, labels).item() == pytest.approx(math.log(12), rel=1e-6)
    # Two classes of two on orthogonal axes: each sees two equal members and two at cosine 0.
    features = torch.eye(2).repeat_interleave(2, 0)
    expected = math.log(2 + 2 * math.exp(-1 / 0.1))
    found = prototypical(features, torch.tensor([1, 1, 2, 2]))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_classes_count_alike_however_large():
    """A class of 30 must not outvote one of 2: the mean is over classes, then over members."""
    features = torch.cat([unit(30, seed=2), unit(2, seed=3)])
    labels = torch.tensor([1] * 30 + [2] * 2)
    means, classes = prototypes(features, labels)
    assert classes.tolist() == [1, 2]
    torch.testing.assert_close(means, torch.stack([features[:30].mean(0), features[30:].mean(0)]))
    shares = F.log_softmax(means @ features.T / 0.1, 1)
    expected = -(shares[0, :30].mean() + shares[1, 30:].mean()) / 2
    torch.testing.assert_close(prototypical(features, labels), expected)


def test_background_repels_but_attracts_nothing():
    features = unit(20, seed=4)
    labels = torch.tensor([1] * 5 + [0] * 15)
    alone = prototypical(features[:5], labels[:5])
    assert prototypical(features, labels) > alone
    moved = features.clone().requires_grad_()
    prototypical(moved, labels).backward()
    assert moved.grad is not None
    own = features[:5].mean(0)
    assert ((moved.grad[5:] @ own) > 0).all()  # descent leads away from the prototype


def test_without_any_class_the_semantic_loss_is_zero():
    features = unit(5).requires_grad_()
    loss = prototypical(features, torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def test_appearance_is_the_formula():
    queries, keys, candidates, others = (
        unit(n, seed=s) for n, s in ((7, 0), (7, 1), (30, 2), (4, 3))
    )
    near = torch.rand(7, 30, generator=torch.Generator().manual_seed(4)) < 0.3
    found = appearance(queries, keys, candidates, near, others, hard=5, diverse=8, temperature=0.2)
    expected = plain_appearance(queries, keys, candidates, near, others, 5, 8, 0.2)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_appearance_closed_form():
    """Orthogonal everything: log(1 + n exp(-1/t)) for n negatives."""
    basis = torch.eye(8)
    near = torch.zeros(1, 6, dtype=torch.bool)
    loss = appearance(basis[:1], basis[:1], basis[1:7], near, basis[7:], 3, 2, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-2)), rel=1e-6)


def test_a_place_within_the_exclusion_radius_has_no_part():
    """Not in the value and not in the gradient: it is masked, not merely multiplied by zero."""
    queries, keys, candidates = unit(3), unit(3, seed=1), unit(10, seed=2)
    near = torch.zeros(3, 10, dtype=torch.bool)
    near[:, 4] = True
    without = candidates[[n for n in range(10) if n != 4]]
    settings = {"hard": 4, "diverse": 0, "temperature": 0.1}
    none = unit(1)[:0]
    moved = candidates.clone().requires_grad_()
    loss = appearance(queries, keys, moved, near, none, **settings)
    bare = appearance(queries, keys, without, near[:, :9] & False, none, **settings)
    torch.testing.assert_close(loss, bare)
    loss.backward()
    assert moved.grad is not None
    assert moved.grad[4].abs().max() == 0
    everything = torch.ones_like(near)
    alone = appearance(queries, keys, candidates, everything, none, **settings)
    assert alone.item() == pytest.approx(0, abs=1e-9)


def test_harder_negatives_cost_more():
    queries, keys = unit(5), unit(5)
    candidates = torch.cat([unit(50, seed=7), F.normalize(unit(5) + 0.3 * unit(5, seed=8))])
    near = torch.zeros(5, 55, dtype=torch.bool)
    hard = appearance(queries, keys, candidates, near, unit(1)[:0], hard=5, diverse=0)
    soft = appearance(queries, keys, candidates, near, unit(1)[:0], hard=0, diverse=5)
    assert hard > soft


def test_no_places_cost_nothing():
    nothing = unit(1)[:0].requires_grad_()
    loss = appearance(nothing, nothing, unit(3), torch.zeros(0, 3, dtype=torch.bool), nothing)
    assert loss.item() == 0
