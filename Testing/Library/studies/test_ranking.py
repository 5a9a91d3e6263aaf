"""The ranking of matches: counted against a known truth, by scores worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import small_encoder, texture

from CrossKEYLib.errors import InputError
from CrossKEYLib.evaluation.cases import FOREIGN, REAL, Case, Images
from CrossKEYLib.geometry import transform
from CrossKEYLib.models.described import Described
from CrossKEYLib.models.patient import Model
from Testing.Studies import ranking


def waves(points: torch.Tensor) -> torch.Tensor:
    """Unit descriptors that tell where a point lies."""
    generator = torch.Generator().manual_seed(3)
    slopes, phases = (torch.randn(n, 64, generator=generator) for n in (3, 1))
    return torch.nn.functional.normalize(torch.cos(0.3 * points @ slopes + 6 * phases), dim=1)


def test_matches_are_right_where_the_landmarks_say_so(monkeypatch):
    """An image and itself: every place finds itself; with landmarks 9 mm off, none is right."""
    image = texture(40)
    local = torch.rand(2, 3000, 3, generator=torch.Generator().manual_seed(0)) * 39
    dense, targets = image.points_ras(local[0]), image.points_ras(local[1][:40])
    monkeypatch.setattr(ranking, "brain_mask", lambda mri: mri)
    monkeypatch.setattr(ranking, "describe_brain", lambda *given: Described(dense, waves(dense)))
    monkeypatch.setattr(Model, "describe", lambda self, v, p, modality: Described(p, waves(p)))
    beside = transform.apply(transform.from_parts(np.eye(3), [9.0, 0, 0]), targets)
    shares = []
    for landmarks in (targets, beside):
        case = Case(REAL, "mri", "ius", lambda kept=landmarks: Images(image, image, kept, targets))
        found = ranking.ranked(case, Model(small_encoder(), "small"), 6000)
        assert set(found) == {*ranking.RANKS, ranking.SUPPORT}
        shares.append(float(found[ranking.SUPPORT][:200].float().mean()))
    assert shares[0] > 0.9
    assert shares[1] < 0.1


def test_the_table_counts_the_best():
    right = torch.tensor([True] * 50 + [False] * 150)
    text = ranking.table({"a, b": {"ratio": right}}).splitlines()
    assert text[2].startswith("| a, b | ratio | 100 % | 50 % | 25 % |")


def test_a_pair_without_landmarks_is_refused():
    image = texture(20)
    case = Case(FOREIGN, "mri", "ius", lambda: Images(image, image, None, None))
    with pytest.raises(InputError, match="landmarks"):
        ranking.ranked(case, Model(small_encoder(), "small"), 6000)
