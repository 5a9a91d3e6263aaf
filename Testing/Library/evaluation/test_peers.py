"""The peers find what they are made to find, in whatever frame the images come."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.heads import (
    BLOCK_MM,
    CENTRE,
    TISSUE,
    block,
    block_anatomy,
    clear_style,
    mottled,
    probe_above,
)
from phantoms.training import texture
from phantoms.volumes import ORIENTATIONS

from CrossKEYLib.descriptors.mind import self_similarity
from CrossKEYLib.errors import EstimationError, InputError
from CrossKEYLib.estimation.target_error import target_errors
from CrossKEYLib.evaluation.peers import (
    ants,
    convex_adam,
    elastix,
    lc2,
    mind,
    mutual_information,
)
from CrossKEYLib.evaluation.peers.grids import Overlay
from CrossKEYLib.evaluation.peers.images import Pair, field_of_view
from CrossKEYLib.evaluation.peers.registry import PEERS
from CrossKEYLib.evaluation.peers.search import ClimbConfig, climb, search
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import box_mean
from CrossKEYLib.geometry.transform import Matrix
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.simulator import simulate

SIZE = 40
SHORT = ClimbConfig(tries=12, climbs=1, evaluations=200)
CONFIGS = {
    "mi": mutual_information.MutualInformationConfig(iterations=100),
    "elastix": elastix.ElastixConfig(iterations=150),
    "ants": ants.AntsConfig(iterations=(200, 200, 100, 20)),
    "lc2": replace(lc2.Lc2Config(), spacing_mm=(2.0, 1.5), search=SHORT),
    "convexadam": convex_adam.ConvexAdamConfig(spacing_mm=2.0, iterations=30),
    "mind": replace(mind.MindConfig(), spacing_mm=(2.0, 1.5), search=SHORT),
}


def peer(name: str):
    """Its function with a short configuration; skips where its package is not installed."""
    try:
        PEERS[name].check()
    except InputError as error:
        pytest.skip(str(error))
    return lambda fixed, moving: PEERS[name].register(fixed, moving, 0, CONFIGS[name])


def misplaced(ius: Volume) -> tuple[Volume, Matrix]:
    """Moved by 3 mm and 4 degrees; and the transform that undoes it."""
    start = transform.random_rigid(np.random.default_rng(5), 3.0, 4.0, ius.centre_ras)
    return ius.moved(start), transform.invert(start)


def same_image() -> tuple[Volume, Volume]:
    """An MRI stored left-handed, and a ball of it as an oblique finer grid shows it."""
    mri = texture(SIZE, grain=1.8)
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = SIZE - 1
    stored = Volume(mri.array.flip(2), mri.ijk_to_ras @ flip)
    middle = mri.centre_ras
    corners = middle + 0.22 * SIZE * np.array([[-1.0, -1, -1], [1, 1, 1]])
    grid = Grid.around(corners, 0.8, 4.0, rotation=ORIENTATIONS["oblique"])
    away = torch.as_tensor(grid.points().double().numpy() - middle).norm(dim=-1)
    return stored, Volume(mri.sample(grid.points()) * (away < 0.36 * SIZE), grid.ijk_to_ras)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "convexadam"])
def test_a_displaced_image_is_laid_back_onto_itself(name):
    register = peer(name)
    mri, ius = same_image()
    moved, truth = misplaced(ius)
    found = register(mri, moved)
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)
    assert np.linalg.det(found) == pytest.approx(1, abs=1e-6)
    inside = moved.points_ras((moved.array > 0).nonzero().float())
    assert target_errors(found, transform.apply(truth, inside), inside).mean() < 0.5


def test_a_field_of_displacements_becomes_the_rigid_transform_nearest_to_it():
    """Deformable registration of a rigidly moved image: most of the way is made."""
    register = peer("convexadam")
    mri, _ = same_image()
    shown = mri.resample(Grid.around(mri.centre_ras + np.array([[-14.0] * 3, [14.0] * 3]), 1.0))
    moved = shown.moved(transform.from_parts(np.eye(3), [4.0, -2.0, 3.0]))
    found = register(mri, moved)
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1, abs=1e-6)
    inside = moved.points_ras((moved.array > 0).nonzero().float())
    off = transform.from_parts(np.eye(3), [-4.0, 2.0, -3.0])
    assert target_errors(found, transform.apply(off, inside), inside).mean() < 2.0  # of 5.4


@pytest.mark.parametrize("name", ["lc2", "mind"])
def test_simulated_ultrasound_is_laid_onto_its_mri(name):
    """Dark balls in tissue: the ultrasound shows bright walls and speckle."""
    mri = bubbles()
    style = clear_style(speckle=0.7, wall_gain=12.0, sheet_gain=2.0)
    generator = torch.Generator().manual_seed(0)
    ius = simulate(block_anatomy(mri), generator, probe=probe_above(), style=style).volume
    moved, truth = misplaced(ius)
    inside = moved.points_ras((moved.array > 0).nonzero().float())
    aim = transform.apply(truth, inside)
    before, after = (
        float(target_errors(matrix, aim, inside).mean())
        for matrix in (np.eye(4), peer(name)(mri, moved))
    )
    assert before > 2.5
    assert after < 1.0


def bubbles() -> Volume:
    """A block with balls of dark fluid, so many that no motion leaves the image unchanged."""
    grid = block()
    array, points = mottled(grid), grid.points()
    rng = np.random.default_rng(1)
    for centre in CENTRE + rng.uniform(-0.4 * BLOCK_MM, 0.4 * BLOCK_MM, (14, 3)):
        away = (points - torch.as_tensor(centre, dtype=torch.float32)).norm(dim=-1)
        array[away < rng.uniform(3.5, 6.0)] = 0.2 * TISSUE
    return Volume(array, grid.ijk_to_ras)


def test_lc2_is_one_for_a_linear_combination():
    """Whatever its coefficients; and near zero for noise."""
    mri, ius = same_image()
    pair = Pair.of(mri, ius)
    similarity = lc2.Lc2(pair, 1.5, lc2.Lc2Config())
    p, g = similarity.overlay.seen(np.eye(4))[0]
    generator = torch.Generator().manual_seed(0)
    for image, low, high in (
        (0.3 - 0.6 * p + 1.7 * g, 0.99, 1.0),
        (torch.rand(p.shape, generator=generator), -0.01, 0.1),
    ):
        similarity.overlay = replace(similarity.overlay, ius=image)
        assert low < similarity(np.eye(4)) <= high + 1e-6


def test_mind_ignores_contrast():
    """Descriptors of an image and of its negative are equal; agreement is best at the truth."""
    image = texture(20).array
    inner = (slice(None), *(slice(3, -3),) * 3)  # the mean runs into zeros at the border
    a, b = (self_similarity(x)[inner] for x in (image, 3.0 - 2.0 * image))
    assert torch.allclose(a, b, atol=1e-4)
    assert float(a.amax()) <= 1
    mri, ius = same_image()
    similarity = mind.Mind(Pair.of(mri, ius), 1.5, mind.MindConfig())
    aside = transform.random_rigid(np.random.default_rng(0), 2.0, 0.0, ius.centre_ras)
    assert similarity(aside) < similarity(np.eye(4)) <= 0


@pytest.mark.parametrize("make", [lc2.Lc2, mind.Mind])
def test_leaving_the_mri_does_not_pay(make):
    config = lc2.Lc2Config() if make is lc2.Lc2 else mind.MindConfig()
    mri, ius = same_image()
    similarity = make(Pair.of(mri, ius), 1.5, config)
    for shift in (15.0, 25.0, 200.0):
        away = transform.from_parts(np.eye(3), [shift, 0, 0])
        assert similarity(away) < similarity(np.eye(4))


def test_search_climbs_to_the_top():
    """A smooth hill over rigid motions, its top 5 mm and 5 degrees away."""
    centre = np.array([10.0, 20.0, 30.0])
    points = centre + np.random.default_rng(0).uniform(-25, 25, (30, 3))
    top = transform.random_rigid(np.random.default_rng(1), 5.0, 5.0, centre)
    aim = points @ top[:3, :3].T + top[:3, 3]

    def hill(matrix: Matrix) -> float:
        off = points @ matrix[:3, :3].T + matrix[:3, 3] - aim
        return float(np.exp(-np.square(off).sum(1).mean() / 200))

    found = search([hill, hill], centre, np.random.default_rng(2), SHORT)
    assert hill(found) > 0.999
    assert np.array_equal(climb(lambda m: 0.0, top, centre, SHORT), top)  # nothing to gain


def test_box_mean_is_a_mean_over_cubes():
    x = torch.arange(7 * 6 * 5, dtype=torch.float32).reshape(1, 7, 6, 5)
    pooled = torch.nn.functional.avg_pool3d(x, 3, 1, 1)
    assert torch.allclose(box_mean(x, 3), pooled, atol=1e-4)
    assert torch.allclose(box_mean(x, 3, 2), pooled[:, ::2, ::2, ::2], atol=1e-4)


def test_field_of_view_keeps_off_the_rim():
    array = torch.zeros(12, 12, 12)
    array[2:, 2:10, 2:10] = 1  # on one side it ends with the box, which is a rim too
    mask = field_of_view(Volume(array, np.diag([0.5, 0.5, 0.5, 1.0])), 1.0).array
    kept = mask.nonzero()
    assert kept.amin(0).tolist() == [4, 4, 4]
    assert kept.amax(0).tolist() == [9, 7, 7]


def test_a_sheared_mri_is_straightened():
    mri, ius = same_image()
    sheared = mri.ijk_to_ras.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    pair = Pair.of(Volume(mri.array, sheared), ius)
    axes = pair.mri.ijk_to_ras[:3, :3]
    assert np.allclose(axes.T @ axes, np.eye(3) * axes[0, 0] ** 2)
    level = Overlay.of(pair, 2.0)
    assert level.ius.shape == level.mask.shape == level.points.shape[:3]


def test_a_peer_that_loses_the_mri_says_so():
    mri, ius = same_image()
    with pytest.raises(EstimationError, match="mutual information"):
        peer("mi")(mri, ius.moved(transform.from_parts(np.eye(3), [400, 0, 0])))


@pytest.mark.parametrize(
    ("name", "package"),
    [("elastix", "itk-elastix"), ("ants", "antspyx"), ("convexadam", "convexadam")],
)
def test_a_missing_package_is_named(name, package, monkeypatch):
    monkeypatch.setitem(
        sys.modules, {"elastix": "itk", "convexadam": "convexAdam"}.get(name, name), None
    )
    with pytest.raises(InputError, match=f"not installed; run: pip install {package}"):
        PEERS[name].check()
    with pytest.raises(InputError, match="pip install"):
        PEERS[name].register(*same_image(), 0)
