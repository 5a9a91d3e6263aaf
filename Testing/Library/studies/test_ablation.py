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
    """An image and a part of itself: the embedding of `OffsetModel` finds every place."""
    image = texture(56, seed=4, grain=3.0)
    part = image.array.clone()
    part[:6] = 0
    local = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 30 + 13
    targets = image.points_ras(local)
    return Images(image, image.replaced(part), targets, targets)


@pytest.fixture(scope="module")
def outcomes(images: Images):
    """Every finder and every refinement from one start. The patch descriptor is untrained, so that
    only the embedding finds the place."""
    case = Case(REAL, "mri", "ius", lambda: images)
    return ablation.outcomes_of(case, "10 / 10", 1, Model(small_encoder(), "small"), OffsetModel())


def of(outcomes, finder: str, refine: str):
    (found,) = [o for o in outcomes if (o["finder"], o["refine"]) == (finder, refine)]
    return found


def test_errors_are_against_the_truth_before_misplacement(outcomes, images):
    start = start_of("10 / 10", 1, images.ius.centre_ras)
    for kind in ablation.REFINEMENTS:
        found = of(outcomes, "uae", kind)
        ends = transform.apply(np.array(found["matrix_ras"]) @ start, images.targets_moving)
        left = (ends - images.targets_fixed).norm(dim=1).mean()
        assert found["tre_mm"] == pytest.approx(float(left), abs=1e-3)
        assert found["tre_mm"] < 1.5
        assert found["turned_deg"] < 3
        assert found["precision"] > 0.5


def test_refinement_starts_from_what_was_found(outcomes):
    plain, refined = (of(outcomes, "uae", kind) for kind in ("none", "mind"))
    assert refined["matrix_ras"] != plain["matrix_ras"]
    assert refined["tre_mm"] < 0.3
    assert refined["improved"]
    assert 0 < refined["moved_mm"] < 3


def test_what_is_not_found_counts_as_infinitely_wrong(outcomes):
    # Whether the untrained descriptor finds a wrong transform or none depends on rounding.
    nothing = {"tre_mm": None, "matrix_ras": None, "turned_deg": None}
    rows = ablation.table(
        [{**o, **nothing} if o["finder"] == "crosskey" else o for o in outcomes]
    ).splitlines()[2:]
    assert len(rows) == len(ablation.FINDERS) * len(ablation.REFINEMENTS)
    assert rows[0].startswith("| mri | crosskey | none | inf mm | inf mm | 0 of 1 |")
    (found,) = [row for row in rows if row.startswith("| mri | uae | mind |")]
    assert found.endswith("| 1 of 1 |")  # taken


def test_landmarks_are_needed(images):
    case = Case(REAL, "mri", "ius", lambda: Images(images.mri, images.ius, None, None))
    with pytest.raises(InputError, match="needs landmarks"):
        ablation.outcomes_of(case, "0 / 0", 0, Model(small_encoder(), "small"), OffsetModel())
