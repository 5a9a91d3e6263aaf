"""A CT-like volume of a head, and how the embedding is shown a CT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.training import texture

from CrossKEYLib import cli
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.ct import WINDOW_HU, is_hounsfield, windowed
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import read_anatomy
from CrossKEYLib.synthesis.pseudo_ct import pseudo_ct

RADII = {"ventricle": 10.0, "brain": 68.0, "skull": 76.0, "scalp": 85.0}
T1 = {"ventricle": 15.0, "brain": 90.0, "skull": 8.0, "scalp": 130.0}


@pytest.fixture(scope="module")
def head() -> Volume:
    """Balls within each other, with the grey levels of a T1."""
    grid = Grid((96, 96, 96), from_parts(2 * np.eye(3), [-95.0, -95.0, -95.0]))
    radius = grid.points().norm(dim=-1)
    noise = 2 * torch.rand(grid.shape, generator=torch.Generator().manual_seed(0))
    array = torch.zeros(grid.shape)
    for part in reversed(RADII):
        array = torch.where(radius < RADII[part], T1[part], array)
    return Volume(array + noise, grid.ijk_to_ras)


@pytest.fixture(scope="module")
def ct(head: Volume) -> Volume:
    return pseudo_ct(head, torch.Generator().manual_seed(0))


def shell(volume: Volume, inner: float, outer: float) -> torch.Tensor:
    radius = Grid.of(volume).points().norm(dim=-1)
    return volume.array[(radius > inner) & (radius < outer)]


def test_each_tissue_gets_its_hounsfield_units(head, ct):
    np.testing.assert_array_equal(ct.ijk_to_ras, head.ijk_to_ras)
    assert shell(ct, 91, 200).mean() == pytest.approx(-1000, abs=5)
    assert shell(ct, 70.5, 73.5).median() > 500
    brain, fluid = shell(ct, 20, 50).mean(), shell(ct, 0, 6).mean()
    assert 25 < brain < 45
    assert 0 < fluid < 20
    assert -100 < shell(ct, 78.5, 81).median() < 60


def test_heads_and_scanners_differ_by_the_seed_alone(head, ct):
    anatomy = read_anatomy([head])
    again, other = (
        pseudo_ct(head, torch.Generator().manual_seed(seed), anatomy) for seed in (0, 1)
    )
    assert torch.equal(again.array, ct.array)
    assert (shell(other, 70.5, 73.5).median() - shell(ct, 70.5, 73.5).median()).abs() > 20


def test_a_stripped_brain_has_no_skull_to_show(head):
    radius = Grid.of(head).points().norm(dim=-1)
    stripped = head.replaced(torch.where(radius < RADII["brain"], head.array, 0))
    with pytest.raises(InputError, match="shows no skull"):
        pseudo_ct(stripped, torch.Generator().manual_seed(0))


def test_a_ct_is_told_by_its_air_and_windowed(head, ct):
    assert is_hounsfield(ct)
    shown = windowed(ct).array
    assert (float(shown.min()), float(shown.max())) == WINDOW_HU
    for mri in (head, texture(32)):
        assert not is_hounsfield(mri)
        assert windowed(mri) is mri


def test_the_command_makes_ct(head, tmp_path, capsys):
    head.write(tmp_path / "head.nii.gz")
    given = ["--mri", str(tmp_path / "head.nii.gz"), "--output", str(tmp_path / "out")]
    assert cli.main(["synthesize", "--kind", "ct", *given]) == 0
    made = Volume.read(tmp_path / "out" / "synthetic_001.nii.gz")
    assert is_hounsfield(made)
    assert made.shape == head.shape
