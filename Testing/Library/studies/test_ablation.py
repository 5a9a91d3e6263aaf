"""The ablation: errors against a known truth, and tables that count every outcome."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import small_encoder, texture
from phantoms.universal import OffsetModel

from CrossKEYLib.errors import InputError
from CrossKEYLib.evaluation.cases import REAL, Case, Images
from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.geometry import transform
from CrossKEYLib.models.patient import Model
from Testing.Studies import ablation


@pytest.fixture(scope="module")
def images() -> Images:
    """An image and itself: the embedding of `OffsetModel` finds every place."""
    image = texture(56, seed=4, grain=3.0)
    local = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 30 + 13
    targets = image.points_ras(local)
    return Images(image, image, targets, targets)


@pytest.fixture(scope="module")
def outcomes(images: Images):
    """All finders end 2 mm beside the truth; refined by the embedding alone, for speed."""
    start = start_of("10 / 10", 1, images.ius.centre_ras)
    found = transform.from_parts(np.eye(3), [2.0, 0, 0]) @ transform.invert(start)
    case = Case(REAL, "mri", "ius", lambda: images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "_found", lambda *given: found)
        patch.setattr(ablation, "FINDERS", ("crosskey",))
        patch.setattr(ablation, "REFINEMENTS", ("none", "uae"))
        model = Model(small_encoder(), "small")
        return ablation.outcomes_of(case, "10 / 10", 1, model, OffsetModel())


def test_errors_are_against_the_truth_before_misplacement(outcomes):
    plain, refined = outcomes
    assert plain["tre_mm"] == pytest.approx(2.0, abs=1e-3)
    assert plain["turned_deg"] == pytest.approx(0.0, abs=1e-3)
    assert refined["improved"]
    assert refined["tre_mm"] < 0.3
    assert plain["precision"] > 0.9


def test_the_tables_hold_every_way(outcomes):
    plain, refined = ablation.table(outcomes).splitlines()[2:]
    assert plain.endswith("| 2.00 mm | 2.00 mm | 1 of 1 | 0.0 deg |  |")
    assert refined.endswith("| 1 of 1 |")
    assert len(ablation.precisions(outcomes).splitlines()) == 3


def test_failures_count_as_infinitely_wrong(images, monkeypatch):
    monkeypatch.setattr(ablation, "_found", lambda *given: None)
    case = Case(REAL, "mri", "ius", lambda: images)
    model = Model(small_encoder(), "small")
    found = ablation.outcomes_of(case, "0 / 0", 0, model, OffsetModel())
    assert {outcome["tre_mm"] for outcome in found} == {None}
    assert "inf mm" in ablation.table(found)


def test_landmarks_are_needed(images):
    case = Case(REAL, "mri", "ius", lambda: Images(images.mri, images.ius, None, None))
    with pytest.raises(InputError, match="needs landmarks"):
        ablation.outcomes_of(case, "0 / 0", 0, Model(small_encoder(), "small"), OffsetModel())
