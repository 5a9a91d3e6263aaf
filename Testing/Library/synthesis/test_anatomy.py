from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.heads import (
    BALL_MM,
    CENTRE,
    DATA,
    FLUID_BRIGHT,
    FLUID_DARK,
    NORMAL,
    ball,
    ball_distance,
    block,
    block_anatomy,
    grid_around,
    mottled,
    sheet,
    sheet_distance,
    whole,
)
from phantoms.volumes import ORIENTATIONS

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import Anatomy, curvatures, read_anatomy

SHEETS, FLUID, VESSELS = range(3)
INNER_MM = 20.0  # half edge of the part of the block looked at
VENTRICLES = [[6.0, -1.0, 20.0], [8.0, -20.0, 22.0]]  # RAS mm, patient p19
WHITE_MATTER = [[26.0, -10.0, 30.0], [-25.0, -20.0, 30.0]]
OPEN_MS = DATA / "open_ms" / "p19"


def inside(anatomy: Anatomy) -> tuple[torch.Tensor, torch.Tensor]:
    """RAS points ``[N, 3]`` well inside the block and the maps ``[4, N]`` there."""
    points = Grid(tuple(anatomy.maps.shape[1:]), anatomy.ijk_to_ras).points()
    near = (points - torch.tensor(CENTRE, dtype=torch.float32)).abs().amax(-1) < INNER_MM
    return points[near], anatomy.maps[:, near]


def test_curvatures_of_a_quadratic_form():
    """Eigenvalues against LAPACK, and the distance to a valley's floor in closed form."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    hessian = turn @ torch.diag(torch.tensor([0.3, -0.1, -0.2])) @ turn.T
    axis = torch.arange(9.0) - 4
    x = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    largest, middle, _ = curvatures(0.5 * torch.einsum("...a,ab,...b->...", x, hessian, x))
    inner = (slice(2, -2),) * 3
    expected = torch.linalg.eigvalsh(hessian.double())
    assert torch.allclose(largest[inner].double(), expected[2], atol=1e-4)
    assert torch.allclose(middle[inner].double(), expected[1], atol=1e-4)
    along = x @ turn[:, 0]
    offset = curvatures(0.15 * (along - 0.7).square())[2]
    assert torch.allclose(offset[inner], (along - 0.7).abs()[inner], atol=1e-3)


@pytest.mark.parametrize("fluid", [FLUID_DARK, FLUID_BRIGHT], ids=["like T1", "like T2"])
def test_thin_fluid_becomes_a_sheet(fluid):
    points, maps = inside(block_anatomy(sheet(block(), fluid)))
    distance = sheet_distance(points)
    assert float(maps[SHEETS, distance < 0.5].mean()) > 0.7
    assert float(maps[SHEETS, distance > 4].mean()) < 0.05
    assert float(maps[FLUID].max()) < 0.3
    assert float(maps[VESSELS].mean()) < 0.1


@pytest.mark.parametrize("fluid", [FLUID_DARK, FLUID_BRIGHT], ids=["like T1", "like T2"])
def test_large_fluid_is_no_sheet(fluid):
    points, maps = inside(block_anatomy(ball(block(), fluid)))
    distance = ball_distance(points)
    assert float(maps[FLUID, distance < BALL_MM - 3].mean()) > 0.9
    assert float(maps[FLUID, distance > BALL_MM + 2].max()) < 0.05
    assert float(maps[SHEETS, distance < BALL_MM - 3].mean()) < 0.05


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_maps_lie_in_the_world_of_the_mri(orientation):
    linear = ORIENTATIONS[orientation] * (1.0, 1.25, 0.8)
    points, maps = inside(block_anatomy(sheet(block(linear))))
    found = points[maps[SHEETS] > 0.6]
    assert len(found) > 40**2
    assert float(sheet_distance(found).quantile(0.98)) < 2
    # The plane is found again from the points: its normal and its place.
    centre = found.mean(0)
    normal = torch.linalg.svd(found - centre, full_matrices=False)[2][2].numpy()
    assert abs(normal @ NORMAL) > np.cos(np.radians(3))
    assert float(sheet_distance(centre)) < 0.5


def test_several_contrasts_are_averaged_on_one_grid():
    t1 = sheet(block())
    t2 = ball(block(np.diag([-1.5, 1.0, 1.0])), FLUID_BRIGHT)  # another grid, the same world
    anatomy = read_anatomy([t1, t2], whole(t1))
    assert anatomy.tissue.shape[0] == 2
    points, maps = inside(anatomy)
    only_sheet = (sheet_distance(points) < 0.5) & (ball_distance(points) > BALL_MM + 3)
    assert float(maps[SHEETS, only_sheet].mean()) == pytest.approx(0.5, abs=0.08)
    only_ball = (sheet_distance(points) > 5) & (ball_distance(points) < BALL_MM - 3)
    assert float(maps[FLUID, only_ball].mean()) == pytest.approx(0.5, abs=0.08)


def stripped(radius_mm: float = 40.0) -> tuple[Volume, torch.Tensor]:
    """A brain-sized ball with a ventricle in air, and each voxel's distance from its middle."""
    grid = grid_around(CENTRE, np.diag([2.0, 2.0, 2.0]), 120)
    distance = ball_distance(grid.points())
    array = torch.where(distance < radius_mm, mottled(grid), 0.0)
    array[ball_distance(grid.points() - torch.tensor([6.0, 0, 0])) < 5] = FLUID_DARK
    return Volume(array, grid.ijk_to_ras), distance


def test_surface_lies_on_the_rim_and_looks_inwards():
    volume, _ = stripped()
    surface = read_anatomy([volume]).surface
    outwards = surface[:, :3] - torch.tensor(CENTRE, dtype=torch.float32)
    assert len(surface) > 500
    assert float((outwards.norm(dim=1) - 40).abs().max()) < 4
    assert torch.allclose(surface[:, 3:].norm(dim=1), torch.ones(len(surface)), atol=1e-4)
    cosine = (surface[:, 3:] * outwards).sum(1) / outwards.norm(dim=1)
    assert float(cosine.max()) < -0.9
    assert len(torch.unique((outwards > 0).long() @ torch.tensor([1, 2, 4]))) == 8  # all round


def test_what_cannot_be_read_is_refused():
    flat = Volume(torch.full((30, 30, 30), 7.0), np.eye(4))
    for contrasts in ([flat], [sheet(block()), flat]):
        with pytest.raises(InputError, match="constant"):
            read_anatomy(contrasts)
    with pytest.raises(InputError, match="at least one MRI"):
        read_anatomy([])
    with pytest.raises(InputError, match="no brain found"):
        read_anatomy([sheet(block())], flat.replaced(torch.zeros(30, 30, 30)))


def test_saliency_marks_structure():
    anatomy = block_anatomy(sheet(block()))
    points = inside(anatomy)[0]
    value, distance = anatomy.saliency().sample(points), sheet_distance(points)
    assert float(value[distance < 0.5].mean()) > 5 * float(value[distance > 6].mean())
    assert 0 <= float(value.min()) <= float(value.max()) <= 1


@pytest.mark.skipif(not OPEN_MS.is_dir(), reason="no MRI of shared/data here")
@pytest.mark.parametrize("contrast", ["T1", "T2", "FLAIR"])
def test_fluid_of_a_real_patient(contrast):
    """The ventricles: large fluid in each contrast, whether bright or dark in it."""
    mri = Volume.read(OPEN_MS / f"{contrast}.nii.gz")
    # A box about the ventricles: a whole head takes seconds.
    crop = mri.resample(grid_around(np.array([0.0, -12.0, 20.0]), np.eye(3), 64))
    anatomy = read_anatomy([crop], whole(crop))
    fluid = Volume(anatomy.maps[FLUID], anatomy.ijk_to_ras)
    assert float(fluid.sample(torch.tensor(VENTRICLES)).min()) > 0.8
    assert float(fluid.sample(torch.tensor(WHITE_MATTER)).max()) < 0.1
