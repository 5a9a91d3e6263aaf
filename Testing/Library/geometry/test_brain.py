from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.heads import (
    CENTRE,
    DATA,
    FLUID_DARK,
    ball_distance,
    block,
    grid_around,
    mottled,
    sheet,
)
from phantoms.volumes import ORIENTATIONS, matrix_of, noise_volume

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.brain import (
    CELL_MM,
    MASK_MM,
    WEIGHTS,
    averaged,
    brain_mask,
    near_ras,
    network_input,
)
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.runtime.resources import resource

WHOLE_HEAD = DATA / "heads" / "seg3d-mr" / "T1.nii.gz"
CROP = DATA / "resect" / "case24" / "Case24_FLAIR_in_USgrid.nii.gz"


@pytest.fixture(scope="module")
def mri() -> Volume:
    """A brain without skull."""
    return Volume.read(resource("SampleData/MRI.nii.gz"))


@pytest.fixture(scope="module")
def head() -> Volume:
    """A whole head, to 2 mm so that the tests are fast."""
    if not WHOLE_HEAD.exists():
        pytest.skip("no MRI of shared/data here")
    return averaged(Volume.read(WHOLE_HEAD), 2.0)


def rician(volume: Volume, share: float) -> Volume:
    """With noise of ``share`` of the maximum, in the air too."""
    sigma = share * float(volume.array.max())
    generator = torch.Generator().manual_seed(0)
    a, b = sigma * torch.randn(2, *volume.shape, generator=generator)
    return volume.replaced(torch.hypot(volume.array + a, b))


def dice(mask: Volume, reference: Volume) -> float:
    points = reference.points_ras((reference.array >= 0).nonzero())
    a, b = mask.sample(points) > 0.5, reference.array.flatten() > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def litres(mask: Volume) -> float:
    return float(mask.array.sum()) * abs(np.linalg.det(mask.ijk_to_ras[:3, :3])) * 1e-6


def with_neck(volume: Volume, length_mm: float = 80.0) -> Volume:
    """A column of even tissue below the image's lowest slice."""
    near = near_ras(volume)
    n = round(length_mm / near.spacing_mm[2])
    points = Grid.of(near).points()[0]
    centre = torch.as_tensor(near.centre_ras[:2], dtype=torch.float32)
    disc = (points[..., :2] - centre).norm(dim=-1) < 55
    level = float(near.array[near.array > 0].median())
    below = (disc * level).expand(n, *disc.shape)
    matrix = near.ijk_to_ras @ from_parts(np.eye(3), [0, 0, -n])
    return Volume(torch.cat([below, near.array]), matrix)


def test_a_brain_without_skull_keeps_itself(mri):
    mask = brain_mask(mri)
    filled = mri.replaced((mri.array > 0).float())
    inside = mask.sample(mri.points_ras((mri.array > 0).nonzero()))
    assert float((inside > 0.5).float().mean()) > 0.97
    assert dice(mask, filled) > 0.96  # its ventricles are empty in the image, brain in the mask
    assert set(mask.array.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_noise_in_the_air_leaves_the_brain(mri, share):
    assert dice(brain_mask(rician(mri, share)), brain_mask(mri)) > 0.78


def test_a_neck_below_is_no_brain(mri):
    assert dice(brain_mask(rician(with_neck(mri), 0.02)), brain_mask(mri)) > 0.8


def test_skull_scalp_and_neck_are_no_brain(head):
    """The head's brain measures 1.55 litres by deepbet."""
    clean = brain_mask(head)
    assert litres(clean) == pytest.approx(1.55, rel=0.15)
    longer = with_neck(head)
    for changed in (rician(head, 0.02), rician(longer, 0.02)):
        assert dice(brain_mask(changed), clean) > 0.85


def test_a_crop_of_a_patient_is_brain():
    if not CROP.exists():
        pytest.skip("no MRI of shared/data here")
    image = Volume.read(CROP)
    shown = image.points_ras((image.array > 0.05 * image.array.max()).nonzero())
    assert float((brain_mask(image).sample(shown) > 0.5).float().mean()) > 0.95


@pytest.mark.parametrize("linear", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_the_mask_lies_in_the_world_of_the_image(mri, linear):
    """Stored along other axes, the same head has the same brain."""
    axes = grid_around(mri.centre_ras, linear * 2.0, 230)
    mask = brain_mask(mri.resample(axes))
    assert dice(mask, mri.replaced((mri.array > 0).float())) > 0.87


def test_a_phantom_without_skull_keeps_itself():
    """A ball with a ventricle in air."""
    grid = grid_around(CENTRE, np.diag([2.0, 2.0, 2.0]), 120)
    distance = ball_distance(grid.points())
    array = torch.where(distance < 40, mottled(grid), 0.0)
    array[ball_distance(grid.points() - torch.tensor([6.0, 0, 0])) < 5] = FLUID_DARK
    mask = brain_mask(Volume(array, grid.ijk_to_ras))
    inside = ball_distance(Grid.of(mask).points())
    assert float(mask.array[inside < 37].mean()) > 0.99
    assert litres(mask) == pytest.approx(4 / 3 * np.pi * 0.04**3 * 1e3, rel=0.1)


def test_crop_from_inside_a_head_is_all_brain():
    assert float(brain_mask(sheet(block())).array.mean()) > 0.99


def test_near_ras_moves_no_sample():
    for name in ORIENTATIONS:
        volume = noise_volume(name)
        near = near_ras(volume)
        axes = near.ijk_to_ras[:3, :3] / near.spacing_mm
        assert (np.diag(axes) > 0).all()
        assert (np.abs(axes).argmax(0) == range(3)).all() or name.startswith("oblique")
        places = volume.points_ras((volume.array >= 0).nonzero())
        assert torch.allclose(near.sample(places, "nearest"), volume.array.flatten())


def test_averages_of_a_slope_lie_on_the_slope():
    """Cells lie where their samples lie: of a linear image the averages are its own values."""
    matrix = matrix_of("oblique", (1.0, 1.3, 5.0))
    volume = Volume(torch.zeros(24, 32, 42), matrix)
    slope = torch.tensor([0.7, -1.1, 0.4])
    volume = volume.replaced(Grid.of(volume).points() @ slope)
    coarse = averaged(volume, CELL_MM)
    inner = (slice(2, -2),) * 3  # beyond its outermost samples the image does not go on
    wanted = Grid.of(coarse).points() @ slope
    assert torch.allclose(coarse.array[inner], wanted[inner], atol=1.2)  # half a sample
    assert np.allclose(coarse.spacing_mm, CELL_MM, rtol=0.15)


def test_input_ignores_what_is_empty_and_few_hot_samples(mri):
    value, share = network_input(mri)
    assert float(value.array[share.array == 0].abs().max()) == 0
    hot = mri.array.clone()
    hot[50, 60:63, 60] = 100 * hot.max()
    changed, _ = network_input(mri.replaced(hot))
    assert float((changed.array - value.array).abs().median()) < 1e-3
    assert float(((changed.array - value.array).abs() > 0.05).float().mean()) < 1e-3


def test_mask_covers_the_box_of_the_image(mri):
    mask = brain_mask(mri)
    assert np.allclose(mask.spacing_mm, MASK_MM, rtol=0.05)
    assert np.allclose(mask.centre_ras, mri.centre_ras)


def test_constant_image_is_refused():
    with pytest.raises(InputError, match="constant"):
        brain_mask(Volume(torch.full((30, 30, 30), 7.0), np.eye(4)))


def test_weights_are_small():
    assert resource(WEIGHTS).stat().st_size < 2_000_000
