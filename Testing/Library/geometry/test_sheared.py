"""Volumes with sheared axes, as a tilted gantry makes them: same places, same measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.registered import TRUTH, pair
from phantoms.volumes import ORIENTATIONS, matrix_of

from CrossKEYLib import cli
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.formats.transforms import read_transform
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.keypoints.sampling import interior_points
from CrossKEYLib.keypoints.sift3d import detect
from CrossKEYLib.runtime.resources import resource
from CrossKEYLib.trust.lc2 import lc2_margin
from CrossKEYLib.trust.plausibility import speckle

TILT = np.tan(np.radians(15))


def sheared(volume: Volume) -> Volume:
    """The same image sampled along axes of which one is tilted by 15 degrees."""
    spacing = float(volume.spacing_mm.min())
    grid = Grid.along(volume, spacing, 12.0)
    matrix = grid.ijk_to_ras.copy()
    middle = (np.array([*grid.shape[::-1]]) - 1) / 2
    matrix[:3, 2] += TILT * matrix[:3, 1]
    matrix[:3, 3] += grid.ijk_to_ras[:3, :3] @ middle - matrix[:3, :3] @ middle
    k, j, i = grid.shape
    return volume.resample(Grid((k, j, i), matrix))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_grid_along_a_straight_volume_keeps_its_axes(orientation):
    volume = Volume(torch.ones(9, 12, 15), matrix_of(orientation))
    grid = Grid.along(volume, 0.5)
    np.testing.assert_allclose(grid.ijk_to_ras[:3, :3] / 0.5, ORIENTATIONS[orientation], atol=1e-12)


def test_grid_along_a_sheared_volume_is_orthonormal_and_holds_it():
    matrix = matrix_of("oblique left-handed")
    matrix[:3, 2] += matrix[:3, 1]
    volume = Volume(torch.ones(9, 12, 15), matrix)
    grid = Grid.along(volume, 0.7)
    axes = grid.ijk_to_ras[:3, :3] / 0.7
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) < 0
    laid = Volume(torch.ones(grid.shape), grid.ijk_to_ras)
    assert bool(laid.contains(torch.tensor(volume.corners_ras()), -1e-3).all())
    with pytest.raises(ValueError, match="orthonormal"):
        Grid.around(volume.corners_ras(), 0.7, rotation=matrix[:3, :3] / volume.spacing_mm)


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume, Volume]:
    mri, ius = pair()
    return mri, ius, sheared(ius)


def test_interior_points_lie_in_the_field_of_view(images):
    _, straight, tilted = images
    straight_points, points = (interior_points(ius) for ius in (straight, tilted))
    assert len(points) > 0.8 * len(straight_points)
    assert float((tilted.sample(points) > 0).float().mean()) > 0.99
    assert float((points.mean(0) - straight_points.mean(0)).norm()) < 2


def test_measures_do_not_depend_on_shear(images):
    mri, straight, tilted = images
    shifted = transform.from_parts(np.eye(3), [35, 0, 0]) @ TRUTH
    wanted = lc2_margin(mri, straight, TRUTH)
    found, away = (lc2_margin(mri, tilted, matrix) for matrix in (TRUTH, shifted))
    assert wanted is not None
    assert found is not None
    assert found == pytest.approx(wanted, abs=0.05)
    assert away is None or away < found / 2  # none where too little of it lies on the MRI
    assert speckle(rescaled(tilted)) > 0.01  # zero where too little of the grid is filled


def test_keypoints_lie_where_they_lay(images):
    _, straight, tilted = images
    found, again = (detect(rescaled(ius)).points for ius in (straight, tilted))
    nearest = torch.cdist(again, found).amin(1)
    assert float((nearest < 1.5).float().mean()) > 0.5


def test_the_command_registers_a_tilted_pair(tmp_path):
    """The bundled case with both images along tilted axes, as CT with a tilted gantry has them."""
    for name in ("MRI", "iUS"):
        image = sheared(Volume.read(resource(f"SampleData/{name}.nii.gz")))
        axes = image.ijk_to_ras[:3, :3] / image.spacing_mm
        assert abs(axes[:, 1] @ axes[:, 2]) > 0.2
        image.write(tmp_path / f"{name}.nrrd")
    output = tmp_path / "out.tfm"
    given = ["--mri", tmp_path / "MRI.nrrd", "--ius", tmp_path / "iUS.nrrd", "--output", output]
    assert cli.main(["register", *map(str, given)]) == 0
    fixed, moving = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    errors = (transform.apply(read_transform(output), moving) - fixed).norm(dim=1)
    assert float(errors.mean()) < 1.5
