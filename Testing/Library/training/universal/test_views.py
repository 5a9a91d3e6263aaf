"""Augmented views: the places that are called the same are the same, whatever happens to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import small_subject
from phantoms.volumes import OBLIQUE

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import Anatomy
from CrossKEYLib.synthesis.simulator import Simulation
from CrossKEYLib.training.universal.views import (
    Echoes,
    Subject,
    ViewConfig,
    changed,
    common_points,
    cut,
    draw_views,
    read_subject,
    sample_at,
    sliced,
)

CONFIG = ViewConfig(crop_mm=32.0, shift_mm=3.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def coordinates(size: int = 56) -> Subject:
    """A subject whose three 'contrasts' are its own i, j and k coordinates."""
    line = torch.arange(size, dtype=torch.float32) + 1
    grids = torch.meshgrid(line, line, line, indexing="ij")[::-1]
    ones = torch.ones(size, size, size)
    inside = torch.full((4, 3), size / 2)
    return Subject("coordinates", torch.stack(grids), np.zeros(3), ones[None], inside)


def test_common_points_are_the_same_place_in_both_views(subject):
    for seed in range(5):
        views = draw_views(subject, CONFIG, generator(seed))
        first, second = common_points(views, 100, generator(seed))
        assert len(first) > 20
        apart = views[0].place_of(first) - views[1].place_of(second)
        assert apart.abs().max() < 1e-3


def test_views_show_what_lies_at_their_places(monkeypatch):
    """Without changes of intensity each view of a coordinate image reads its own places."""
    monkeypatch.setattr("CrossKEYLib.training.universal.views.changed", lambda image, *rest: image)
    config = replace(CONFIG, cut_share=0.0)
    for seed in range(3):
        for view in draw_views(coordinates(), config, generator(seed)):
            inside = ((view.places > 0) & (view.places < 55)).all(0)
            errors = [(view.image - 1 - place)[inside].abs().max() for place in view.places]
            assert min(errors) < 1e-3  # one of the three, whichever contrast was drawn


def test_views_differ_as_much_as_configured(subject):
    angles, scales = [], []
    for seed in range(40):
        first, second = draw_views(subject, CONFIG, generator(seed))
        linear = np.linalg.inv(first.affine[:3, :3]) @ second.affine[:3, :3]
        scale = np.cbrt(np.linalg.det(linear))
        scales.append(scale)
        cosine = (np.trace(linear / scale) - 1) / 2
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert max(scales) <= 1.11
    assert min(scales) >= 0.9
    assert 15 < max(angles) < 30 * np.sqrt(3) + 1


def test_without_severity_views_are_shifted_crops_of_one_image(subject):
    first, second = draw_views(subject, CONFIG, generator(3), severity=0.0)
    np.testing.assert_allclose(first.affine[:3, :3], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(second.affine[:3, :3], np.eye(3), atol=1e-6)
    a, b = common_points((first, second), 200, generator())
    here, there = sample_at(first.image[None], a)[0], sample_at(second.image[None], b)[0]
    assert (here - there).abs().mean() < 0.03  # what is left is interpolation


def test_equal_seeds_give_equal_views(subject):
    one, same, other = (draw_views(subject, CONFIG, generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(one[0].image, same[0].image)
    assert torch.equal(one[1].places, same[1].places)
    assert not torch.equal(one[0].image, other[0].image)


def test_changes_are_independent_and_of_many_kinds():
    """Rising, falling and other curves all occur, and values stay in range."""
    image = texture(24).array
    correlations = []
    for seed in range(60):
        found = changed(image, generator(seed))
        assert found.amin() > 0
        assert found.amax() <= 1
        both = torch.stack([image.flatten(), found.flatten()])
        correlations.append(float(torch.corrcoef(both)[0, 1]))
    assert sum(c > 0.7 for c in correlations) > 10
    assert sum(c < -0.7 for c in correlations) > 8
    assert sum(abs(c) < 0.6 for c in correlations) > 2


def test_emptiness_stays_one_value():
    image = texture(24).array.clone()
    image[:, :, 12:] = 0
    for seed in range(20):
        empty = changed(image, generator(seed))[:, :, 12:]
        assert (empty == empty[0, 0, 0]).all()


def test_a_cut_empties_one_side():
    image = torch.ones(32, 32, 32)
    shares = [float((cut(image, generator(seed)) > 0).float().mean()) for seed in range(20)]
    assert 0.25 < min(shares) < 0.45
    assert 0.75 < max(shares) < 1.0


def test_one_view_may_take_all_of_the_rotation(subject):
    """Else an image that lies straight would never be seen beside one turned by the whole angle."""
    config = replace(CONFIG, max_angle_deg=45.0, max_scale=0.0)
    pairs = [draw_views(subject, config, generator(seed)) for seed in range(60)]
    turned = np.array([[transform.rotation_angle_deg(v.affine) for v in pair] for pair in pairs])
    assert turned.max() > 45
    assert ((turned.min(1) < 8) & (turned.max(1) > 30)).any()


def test_slices_are_thick_along_one_axis_and_lie_where_they_were():
    line = torch.arange(30, dtype=torch.float32)
    image = line[:, None, None] + 100 * line[None, :, None] + 10_000 * line
    fine = texture(30).array
    roughness = []
    for seed in range(12):
        # Means and linear interpolation keep a ramp but for the first and the last half slice.
        assert (sliced(image, generator(seed)) - image)[6:-6, 6:-6, 6:-6].abs().max() < 1
        seen = sliced(fine, generator(seed))
        steps = [
            seen.diff(dim=axis).abs().mean() / fine.diff(dim=axis).abs().mean() for axis in range(3)
        ]
        roughness.append(min(range(3), key=lambda axis: float(steps[axis])))
        assert min(steps) < 0.9 * sorted(steps)[1]
    assert set(roughness) == {0, 1, 2}


def test_nothing_is_learned_from_what_is_not_seen(subject):
    """No common point lies in the air around a head, or beyond a cut."""
    dark = replace(subject, foreground=subject.foreground.clone())
    dark.foreground[..., :28] = 0
    for seed in range(4):
        views = draw_views(dark, CONFIG, generator(seed))
        _, second = common_points(views, 100, generator(seed))
        assert (views[1].place_of(second)[:, 0] > 26.5).all()


def test_contrasts_and_labels_come_onto_one_grid():
    image = texture(40)
    fine = image.ijk_to_ras @ np.diag([0.5, 0.5, 0.5, 1])
    doubled = image.array.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels = torch.zeros(80, 80, 80)
    labels[:40] = 7
    found = read_subject("a", [image, Volume(doubled, fine)], Volume(labels, fine))
    assert found.contrasts.shape == (2, 40, 40, 40)
    np.testing.assert_allclose(found.origin, image.ijk_to_ras[:3, 3])
    assert found.labels is not None
    assert found.labels[:20].unique().tolist() == [7]
    assert found.labels[21:].unique().tolist() == [0]


def test_unusable_images_name_their_patient():
    image = texture(24)
    with pytest.raises(InputError, match=r"patient p: .*constant"):
        read_subject("p", [image.replaced(0 * image.array)])
    spots = torch.zeros(24, 24, 24)
    spots[12, 12, 12] = 1
    spots[5, 5, 5] = 0.5
    with pytest.raises(InputError, match=r"patient p: .*dark"):
        read_subject("p", [image.replaced(spots)])


@pytest.fixture
def swept(monkeypatch) -> Subject:
    """A subject 100 mm off the origin whose "ultrasound" shows the R coordinate, from an oblique
    field of view that begins at 110 mm A."""
    origin = np.array([100.0, 90.0, 80.0])
    corners = Volume(torch.zeros(61, 61, 61), transform.from_parts(np.eye(3), origin - 2))
    grid = Grid.around(corners.corners_ras(), 1.0, rotation=OBLIQUE)
    places = grid.points()
    shown = torch.where(places[..., 1] > 110, places[..., 0] / 200, 0)
    volume = Volume(shown, grid.ijk_to_ras)
    made = Simulation(volume)
    monkeypatch.setattr("CrossKEYLib.training.universal.views.simulate", lambda *given: made)
    monkeypatch.setattr("CrossKEYLib.training.universal.views.gamma_normalised", lambda ius: ius)
    monkeypatch.setattr("CrossKEYLib.training.universal.views.gained", lambda image, *rest: image)
    plain = coordinates()
    everywhere = Volume(torch.ones(plain.contrasts[0].shape), np.eye(4))
    nothing = torch.zeros(0)
    anatomy = Anatomy(nothing, nothing, everywhere.ijk_to_ras, nothing)
    return replace(plain, origin=origin, echoes=Echoes(anatomy, everywhere))


def test_ultrasound_shows_what_lies_at_its_places(swept):
    config = replace(CONFIG, cut_share=0.0, ultrasound_share=1.0)
    count = 0
    for seed in range(6):
        views = draw_views(swept, config, generator(seed))
        _, there = common_points(views, 100, generator(seed))
        count += len(there)
        places = views[1].place_of(there) + torch.as_tensor(swept.origin).float()
        assert (places[:, 1] > 109).all()
        inner = places[:, 1] > 112  # away from the rim, where empty voxels mix in
        shown = 200 * sample_at(views[1].image[None], there)[0]
        torch.testing.assert_close(shown[inner], places[inner, 0], atol=0.1, rtol=0)
    assert count > 100


def test_ultrasound_is_as_frequent_as_asked(swept, monkeypatch):
    simulated = []
    monkeypatch.setattr(
        "CrossKEYLib.training.universal.views.gained",
        lambda image, *rest: simulated.append(1) or image,
    )
    for share, expected in ((0.0, 0), (1.0, 6)):
        config = replace(CONFIG, ultrasound_share=share, cut_share=0.0)
        for seed in range(6):
            draw_views(swept, config, generator(seed))
        assert len(simulated) == expected


def test_ultrasound_needs_a_brain():
    image = texture(24)
    with pytest.raises(InputError, match="patient a: "):
        read_subject("a", [image.replaced(0 * image.array)], ultrasound=True)
    subject = read_subject("a", [texture(40)], ultrasound=True)
    assert subject.echoes is not None
    assert float(subject.echoes.saliency.sample(subject.inside).amax()) > 0.1


def test_a_probe_that_sees_nothing_leaves_the_contrasts(swept, monkeypatch):
    nothing = Simulation(Volume(torch.zeros(8, 8, 8), np.eye(4)))
    monkeypatch.setattr("CrossKEYLib.training.universal.views.simulate", lambda *given: nothing)
    views = draw_views(swept, replace(CONFIG, ultrasound_share=1.0), generator())
    assert views[1].image.amax() > 0
