"""Pairs for the trust: what is wrong shows nothing right, and what is right keeps its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from Testing.Studies import trust_images as images
from Testing.Studies.trust_evidence import Writer


def volume(
    shape: tuple[int, int, int], corner: tuple[float, float, float], seed: int = 0
) -> Volume:
    generator = torch.Generator().manual_seed(seed)
    array = torch.rand(shape, generator=generator) + 0.1
    return Volume(array, transform.from_parts(np.eye(3), np.array(corner)))


@pytest.fixture
def head() -> Volume:
    """A box of tissue of 160 x 120 x 100 mm (R, A, S), zero around it."""
    made = volume((120, 140, 180), (0, 0, 0))
    array = torch.zeros_like(made.array)
    array[10:110, 10:130, 10:170] = made.array[10:110, 10:130, 10:170]
    return made.replaced(array)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_crop_elsewhere_shows_nothing_of_what_the_ultrasound_shows(head):
    ius = volume((40, 50, 50), (100, 40, 40))
    left = images.cropped_away(head, ius)
    shown = left.points_ras((left.array > 0).nonzero().float())
    assert len(shown) > 100_000
    assert not bool(ius.contains(shown).any())


@pytest.mark.parametrize("seed", range(6))
def test_a_degraded_mri_keeps_its_place(head, seed):
    """A bright ball stays where it is, whatever was done around it."""
    place = torch.tensor([85.0, 70.0, 62.0])
    away = (head.points_ras(torch.ones_like(head.array).nonzero()) - place).square().sum(1)
    ball = torch.where(head.array > 0, 0.1 + 3 * torch.exp(-away / 50).view_as(head.array), 0)
    ius = volume((40, 50, 50), (60, 40, 40))
    made, cropped = images.degraded(head.replaced(ball), ius, generator(seed))
    bright = (made.array > 0.5 * made.array.max()).nonzero()
    weight = made.array[tuple(bright.T)]
    middle = (made.points_ras(bright.float()) * weight[:, None]).sum(0) / weight.sum()
    assert (middle - place).norm() < 1.5
    extent = made.corners_ras().max(0) - made.corners_ras().min(0)
    assert cropped == bool(extent.max() < 110)


def test_speckle_has_the_field_of_view_and_nothing_else(head):
    ius = volume((40, 40, 40), (0, 0, 0)).replaced(head.array[:40, :40, :40])
    made = images.speckle_only(ius, generator())
    assert torch.equal(made.array > 0, ius.array > 0)
    inside = ius.array > 0
    assert abs(float(np.corrcoef(made.array[inside], ius.array[inside])[0, 1])) < 0.05


def test_reflected_twice_is_the_same(head):
    once = images.reflected(head)
    assert not torch.equal(once.array, head.array)
    assert torch.equal(images.reflected(once).array, head.array)


def test_the_same_place_of_another_head_is_where_its_extent_puts_it(head):
    """The other head is half as large: the middle of the ultrasound lies half as far from its
    corner."""
    other = Volume(head.array, np.diag([0.5, 0.5, 0.5, 1]))
    ius = volume((20, 20, 20), (100, 60, 50))
    truth = images.Truth(torch.zeros(1, 3), torch.zeros(1, 3))
    cut = images.same_place(head, other, images.Sweep(ius, truth))
    assert cut.centre_ras == pytest.approx(ius.centre_ras / 2, abs=1.5)


def test_lists_hold_different_people(tmp_path):
    """Files of validation people are found by their list alone; nobody of another list is."""
    for name in ("cstar-stroke", "studyforrest"):
        (tmp_path / "heads" / name).mkdir(parents=True)
        (tmp_path / "heads" / name / "T1.nii.gz").touch()
    chosen = images.People(("validation",), tmp_path, {})
    assert list(chosen.heads) == ["cstar-stroke"]
    assert [real.name for real in chosen.reals][:2] == ["Case24", "Case21"]
    tested = images.People(("test",), tmp_path, {})
    assert list(tested.heads) == ["studyforrest"]
    assert not {r.name for r in tested.reals} & {r.name for r in chosen.reals}


def test_what_is_written_is_not_done_again(tmp_path):
    file = tmp_path / "pairs.jsonl"
    row = {"pair": "a|own|0", "kind": "own", "tre_mm": float("nan"), "trust": None}
    Writer(file, {"weights": "one"}).write([row])
    assert json.loads(file.read_text())["tre_mm"] is None
    assert Writer(file, {"weights": "one"}).done == {"a|own|0"}
    assert Writer(file, {"weights": "another"}).done == set()
