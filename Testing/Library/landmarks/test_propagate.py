"""Landmarks, lesions and registration by the embedding, on images whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import OffsetModel
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import LandmarkConfig
from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.landmarks import embedding_registration, propagate
from CrossKEYLib.landmarks.embedding_registration import register_embedded
from CrossKEYLib.landmarks.found import word
from CrossKEYLib.landmarks.places import places, vectors
from CrossKEYLib.landmarks.propagate import (
    embedded_pair,
    find_landmarks,
    locate_points,
    similarity_map,
)
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.registration.by_embedding import register_by_embedding

CONFIG = LandmarkConfig()
MOVE = transform.from_parts(np.eye(3), [7.0, -11.0, 5.0])


@pytest.fixture(scope="module")
def model() -> UniversalModel:
    return OffsetModel()


@pytest.fixture(scope="module")
def image() -> Volume:
    return texture(64, grain=2.5)


@pytest.fixture(scope="module")
def points(image: Volume) -> torch.Tensor:
    inner = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) * 30 + 17
    return image.points_ras(inner)


@pytest.mark.parametrize("method", ["fixed_point", "nearest"])
def test_points_follow_an_image_that_moved(model, image, points, method):
    found = find_landmarks(image, image.moved(MOVE), points, model, method=method)
    truth = transform.apply(MOVE, points)
    errors = (found.points - truth).norm(dim=1)
    assert errors.max() < (1.0 if method == "fixed_point" else 2.5)
    assert found.scores.shape == found.spreads.shape == (8,)
    assert found.scores.min() > 0.7


def test_the_file_layout_of_the_other_image_does_not_matter(model, image, points):
    """Flipped and permuted axes, finer samples."""
    swap = np.array([[0, 0, 0.5, 0], [0, -0.5, 0, 63], [0.5, 0, 0, 0], [0, 0, 0, 1]])
    fine = torch.nn.functional.interpolate(
        image.array[None, None], size=(127, 127, 127), mode="trilinear", align_corners=True
    )[0, 0]
    other = Volume(fine.permute(2, 1, 0).flip(1), image.ijk_to_ras @ swap)
    found = find_landmarks(image, other.moved(MOVE), points, model)
    assert (found.points - transform.apply(MOVE, points)).norm(dim=1).max() < 1.5


def test_a_lesion_is_followed_between_two_visits(model, image):
    """It has grown, and the patient lies differently."""
    centre = image.points_ras(torch.tensor([[30.0, 34.0, 28.0]]))
    spots = [image.array.clone() for _ in range(2)]
    distance = (image.points_ras(torch.ones_like(image.array).nonzero().float()) - centre).norm(
        dim=1
    )
    for spot, radius in zip(spots, (3.0, 4.5), strict=True):
        spot[(distance < radius).reshape(spot.shape)] = 1.0
    before, after = (image.replaced(spot) for spot in spots)
    found = find_landmarks(before, after.moved(MOVE), centre, model)
    assert (found.points - transform.apply(MOVE, centre)).norm() < 2


def test_the_similarity_map_peaks_at_the_place(model, image, points):
    here, there = model.embed(image), model.embed(image.moved(MOVE))
    for point in points[:3]:
        found = similarity_map(here, there, point)
        assert found.array.abs().max() <= 1.001
        peak = found.points_ras((found.array == found.array.max()).nonzero()[:1].float())[0]
        assert (peak - transform.apply(MOVE, point)).norm() < 2.5
        assert found.sample(peak[None]) == pytest.approx(float(found.array.max()), abs=1e-4)


def test_similarity_is_the_weighted_mean_of_the_heads(model, image, points):
    embedding = model.embed(image)
    config = replace(CONFIG, fine_weight=2.0, coarse_weight=1.0, semantic_weight=0.0)
    joined = vectors(embedding, points, config)
    assert joined.shape == (8, 80)  # the head without weight is left out
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(8))
    fine, coarse, _ = embedding.at(points)
    expected = (2 * (fine @ fine.T) + coarse @ coarse.T) / 3
    torch.testing.assert_close(joined @ joined.T, expected, atol=1e-5, rtol=1e-5)


def test_places_lie_in_the_image_on_a_2_mm_grid(model):
    array = texture(48).array.clone()
    array[:, :, 24:] = 0
    volume = Volume(array, np.eye(4))
    found = places(model.embed(volume), CONFIG)
    assert found.points[:, 0].max() <= 28
    assert len(found) == pytest.approx(24 * 24 * 12, rel=0.25)
    apart = torch.cdist(found.points[:50], found.points)
    assert apart[apart > 0].min() == pytest.approx(2.0, abs=1e-4)


def test_registration_of_a_part_to_the_whole(model, image):
    """Half the field of view, turned and shifted: no start is given."""
    cut = image.array.clone()
    cut[:30] = 0
    truth = transform.random_rigid(np.random.default_rng(0), 10.0, 6.0, image.centre_ras)
    moving = image.replaced(cut).moved(transform.invert(truth))
    config = replace(CONFIG, moving_points=800)
    result = register_embedded(image, moving, model, config=config)
    assert result
    assert result.matrix is not None
    seen = image.points_ras(
        torch.tensor([[40.0, 20, 20], [45, 45, 20], [50, 30, 45], [35, 30, 30]])
    )
    back = transform.apply(result.matrix @ transform.invert(truth), seen)
    assert (back - seen).norm(dim=1).max() < 1.5


def test_affine_registration_finds_a_stretch(model, image):
    stretch = transform.from_parts(np.diag([1.05, 1.0, 0.96]), [0.0, 0.0, 0.0])
    config = replace(CONFIG, moving_points=800)
    moving = image.moved(transform.invert(stretch))
    corners = torch.as_tensor(moving.corners_ras())
    truth = transform.apply(stretch, corners)
    errors = {}
    for kind in ("rigid", "affine"):
        result = register_embedded(image, moving, model, transform=kind, config=config)
        assert result.matrix is not None
        errors[kind] = float((transform.apply(result.matrix, corners) - truth).norm(dim=1).mean())
    assert errors["affine"] < 1.0 < errors["rigid"]


def test_unrelated_images_give_a_reason_or_few_inliers(model, image):
    config = replace(CONFIG, moving_points=300)
    other = register_embedded(image, texture(48, seed=77, grain=4.0), model, config=config)
    same = register_embedded(image, image.moved(MOVE), model, config=config)
    assert same
    assert other.n_inliers < same.n_inliers / 3
    assert bool(other) != bool(other.reason)


def test_points_outside_are_refused(model, image, points):
    far = torch.cat([points[:2], points[2:3] + 500])
    with pytest.raises(InputError, match=r"point 3 .* lies outside"):
        find_landmarks(image, image, far, model)
    with pytest.raises(InputError, match="method 'best' is unknown"):
        find_landmarks(image, image, points, model, method="best")  # type: ignore[arg-type]


def test_embedding_once_serves_many_questions(model, image, points):
    here, there = model.embed(image), model.embed(image.moved(MOVE))
    direct = find_landmarks(image, image.moved(MOVE), points, model)
    again = locate_points(here, there, points)
    torch.testing.assert_close(direct.points, again.points)
    torch.testing.assert_close(direct.spreads, again.spreads)
    assert direct.found == again.found


def test_a_turned_image_is_seen_in_one_orientation(model, image, points):
    """Embedded as it lies, its descriptors are others; laid straight, points are found as ever,
    and told in the pose that was given."""
    about_z = Rotation.from_euler("z", 16, True).as_matrix()
    turn = transform.about(image.centre_ras, about_z, [5, -3, 2])
    turned, truth = image.moved(turn), transform.apply(turn, points)
    # What a scanner stores: samples along axes of its own, so the content is turned in its grid.
    stored = turned.resample(Grid.around(turned.corners_ras(), 1.0))
    errors = {}
    for passes in (1, 2):
        config = replace(CONFIG, passes=passes)
        found = find_landmarks(image, stored, points, model, config=config)
        errors[passes] = float((found.points - truth).norm(dim=1).mean())
    assert errors[2] < 1.0
    assert errors[2] < 0.7 * errors[1]
    pair = embedded_pair(image, stored, model, CONFIG)
    aligned = pair.T_here_there @ turn
    assert transform.rotation_angle_deg(aligned) < 6  # of 16


def test_a_similarity_map_lies_in_the_pose_that_was_given(model, image, points):
    turn = transform.about(image.centre_ras, Rotation.from_euler("z", 16, True).as_matrix())
    stored = image.moved(turn).resample(Grid.around(image.moved(turn).corners_ras(), 1.0))
    pair = embedded_pair(image, stored, model, CONFIG)
    shown = pair.similarity_map(points[0])
    best = shown.points_ras((shown.array == shown.array.amax()).nonzero().float())[0]
    assert float((best - transform.apply(turn, points[:1])[0]).norm()) < 4


@pytest.fixture(scope="module")
def upside_down() -> tuple[Volume, Volume, np.ndarray, torch.Tensor]:
    """A cube; the same turned by 180 degrees and 20 more, in axes of its own; the motion; and
    points of the cube. Descriptors tell where in the cube a place lies, however that is turned."""
    cube = texture(48, grain=2.5)
    turn = Rotation.from_euler("x", 180, True) * Rotation.from_euler("z", 20, True)
    motion = transform.about(cube.centre_ras, turn.as_matrix(), [6, -4, 3])
    turned = cube.moved(motion)
    inner = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) * 24 + 12
    stored = turned.resample(Grid.around(turned.corners_ras(), 1.0))
    return cube, stored, motion, cube.points_ras(inner)


def test_points_of_a_cube_upside_down_are_found(model, upside_down):
    cube, stored, motion, points = upside_down
    truth = transform.apply(motion, points)
    found = find_landmarks(cube, stored, points, model)
    assert (found.points - truth).norm(dim=1).max() < 1.5
    assert found.pose
    assert found.pose.matrix is not None
    assert (transform.apply(found.pose.matrix, truth) - points).norm(dim=1).max() < 1.5
    blind = replace(CONFIG, orientations=0)
    as_it_lies = find_landmarks(cube, stored, points, model, config=blind)
    # Both surveys agree on a wrong pose there, which the images do not confirm.
    assert (as_it_lies.points - truth).norm(dim=1).median() > 10
    assert as_it_lies.pose.report()["inverse_consistency_mm"] < 2
    assert as_it_lies.pose.agreement > 0.9
    assert not as_it_lies.pose


def test_registration_of_a_cube_upside_down(model, upside_down, monkeypatch):
    cube, stored, motion, points = upside_down
    config = replace(CONFIG, moving_points=800)
    result = register_embedded(cube, stored, model, config=config)
    assert result.matrix is not None
    back = transform.apply(result.matrix @ motion, points)
    assert (back - points).norm(dim=1).max() < 1.0
    # Where the search finds nothing, the wrong position is refused, although both ways agree on it.
    monkeypatch.setattr(embedding_registration, "coarse_pose", lambda *rest: None)
    judged = register_by_embedding(cube, stored, model)
    assert judged.inverse_consistency_mm is not None
    assert judged.inverse_consistency_mm < 4
    assert (transform.apply(judged.matrix @ motion, points) - points).norm(dim=1).mean() > 10
    assert judged.verdict == "refused"
    assert "same structure" in judged.reasons[0]


def test_images_that_lie_alike_are_not_searched(model, image, points, monkeypatch):
    def searched(*rest: object) -> None:
        pytest.fail("the orientations were searched")

    for module in (embedding_registration, propagate):
        monkeypatch.setattr(module, "coarse_pose", searched)
    turn = transform.about(image.centre_ras, Rotation.from_euler("z", 10, True).as_matrix())
    moved = image.moved(turn)
    find_landmarks(image, moved, points, model)
    register_embedded(image, moved, model, config=replace(CONFIG, moving_points=800))


def test_points_that_the_other_image_does_not_show_are_absent(model, image):
    cut = image.array.clone()
    cut[:32] = 0
    half = image.replaced(cut)
    kji = torch.rand(40, 3, generator=torch.Generator().manual_seed(3)) * 40 + 12
    found = find_landmarks(image, half, image.points_ras(kji), model)
    absent = torch.tensor([word == "absent" for word in found.found])
    gone, there = kji[:, 0] < 28, kji[:, 0] > 36
    assert absent[gone].float().mean() > 0.9
    assert absent[there].float().mean() < 0.1


@pytest.mark.parametrize(
    ("score", "spread_mm", "settled", "empty", "expected"),
    [
        (0.9, 0.5, True, False, "good"),
        (0.65, 0.5, True, False, "check"),
        (0.9, 2.0, True, False, "check"),
        (0.55, 0.5, True, False, "absent"),
        (0.9, 4.5, True, False, "absent"),
        (0.9, 0.5, False, False, "absent"),
        (0.9, 0.5, True, True, "absent"),
    ],
)
def test_one_word_for_each_point(score, spread_mm, settled, empty, expected):
    said, why = word(score, spread_mm, settled, empty)
    assert said == expected
    assert ("score" in why, "spread" in why) == (score < 0.7, spread_mm > 1.5)
    assert ("unsettled" in why, "outside" in why) == (not settled, empty)
