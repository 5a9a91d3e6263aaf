"""Figures show what lies where, in the right place and the right way round."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.patches import ConnectionPatch
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from phantoms.registered import TRUTH, outcome, pair

from CrossKEYLib import figures
from CrossKEYLib.errors import InputError


def test_left_of_the_patient_is_right_of_the_picture():
    left, front, top = np.array([-1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])
    axial, coronal, sagittal = figures.PLANES
    assert axial.coordinates(left)[0] == 1
    assert axial.coordinates(front)[1] == 1
    assert coronal.coordinates(left)[0] == 1
    assert coronal.coordinates(top)[1] == 1
    assert sagittal.coordinates(front)[0] == -1
    assert sagittal.coordinates(top)[1] == 1


def test_overlay_puts_the_ultrasound_on_the_mri():
    mri, ius = pair()
    drawn = figures.overlay(mri, ius, TRUTH)
    differences = []
    for ax in drawn.axes:
        shown, moved = (np.asarray(image.get_array()) for image in ax.images)
        both = (shown > 0.05) & (moved > 0.05)
        assert both.sum() > 500
        differences.append(float(np.abs(shown - moved)[both].mean()))
        assert [text.get_text() for text in ax.texts].count("20 mm") == 1
    before, after = differences[:3], differences[3:]
    assert max(after) < 0.08  # both are scaled by their own quantiles
    assert min(before) > 2 * max(after)


def test_overlay_shows_world_positions():
    """A bright voxel is drawn where its RAS position says."""
    mri, ius = pair()
    array = torch.full_like(mri.array, 0.1)
    k, j, i = 21, 21, 21
    array[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = 1.0
    marked = ius.replaced(array * (ius.array > 0))
    drawn = figures.overlay(mri.replaced(array), marked, TRUTH)
    centre = mri.points_ras(torch.tensor([[k, j, i]])).double().numpy()[0]
    for ax, plane in zip(drawn.axes[3:], figures.PLANES, strict=True):
        picture = np.asarray(ax.images[0].get_array())
        left, right, bottom, top = ax.images[0].get_extent()
        rows, columns = np.nonzero(picture > 0.8 * picture.max())
        x = left + (columns.mean() + 0.5) / picture.shape[1] * (right - left)
        y = bottom + (rows.mean() + 0.5) / picture.shape[0] * (top - bottom)
        np.testing.assert_allclose([x, y], plane.coordinates(centre)[:2], atol=0.5)


def test_right_matches_are_level_lines():
    result = outcome()
    fixed, moving = result.matched_points()
    drawn = figures.matches(*pair(), TRUTH, fixed, moving, result.inliers)
    lines = [artist for artist in drawn.artists if isinstance(artist, ConnectionPatch)]
    solid = [line for line in lines if line.get_linestyle() == "-"]
    assert solid
    for line in solid:
        np.testing.assert_allclose(line.xy1, line.xy2, atol=1e-3)
    for line in set(lines) - set(solid):
        assert np.linalg.norm(np.subtract(line.xy1, line.xy2)) > 0.1
    assert drawn.get_suptitle().startswith("60 of 90 matches agree")


def test_refused_results_can_be_drawn_too():
    result = outcome(accepted=False, found=False)
    points = result.matched_points()
    assert figures.matches(*pair(), None, *points, result.inliers).axes
    none = torch.zeros(0, 3)
    assert figures.matches(*pair(), None, none, none, torch.zeros(0, dtype=torch.bool)).axes


def test_keypoints_are_drawn_near_their_plane_only():
    result = outcome()
    drawn = figures.keypoints(*pair(), TRUTH, result.fixed.points, result.moving.points)
    shown = [len(ax.collections[-1].get_offsets()) for ax in drawn.axes]
    assert 0 < max(shown) < 30
    assert "90 in the MRI, 90 in the Ultrasound" in drawn.get_suptitle()


def test_saved_whole_and_without_global_state(tmp_path):
    result = outcome()
    before = mpl.rcParams["axes.facecolor"]
    drawn = figures.keypoints(*pair(), TRUTH, result.fixed.points, result.moving.points)
    figures.save(drawn, tmp_path / "é.png")
    assert (tmp_path / "é.png").read_bytes().startswith(b"\x89PNG")
    assert mpl.rcParams["axes.facecolor"] == before
    with pytest.raises(InputError, match="cannot write"):
        figures.save(drawn, tmp_path / "none" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["é.png"]


def test_slices_show_each_image_around_itself_or_around_one():
    mri, ius = pair()
    alone = figures.slices({"MRI": mri, "iUS": ius})
    assert [ax.get_title() for ax in alone.axes[::3]] == ["MRI: axial", "iUS: axial"]
    around = figures.slices({"MRI": mri, "iUS": ius}, around=ius)
    above, below = (ax.images[0].get_extent() for ax in (around.axes[0], around.axes[3]))
    assert above == below
    assert alone.axes[0].images[0].get_extent() != above


def test_fields_of_the_checkerboard_alternate_within_the_field_of_view():
    drawn = figures.checkerboard(*pair(), TRUTH)
    assert [ax.get_title() for ax in drawn.axes[::3]] == ["Before: axial", "After: axial"]
    for ax in drawn.axes:
        ius = np.asarray(ax.images[1].get_array())
        shown = np.asarray(ax.images[1].get_alpha()) == 1
        assert not shown[ius == 0].any()
        filled = ius > 0
        assert 0.3 < shown[filled].mean() < 0.7
        # A field is 25 samples wide: what lies one field to the right is of the other kind.
        both = filled[:, 25:] & filled[:, :-25]
        assert (shown[:, 25:] != shown[:, :-25])[both].mean() > 0.95


def test_heatmap_is_coloured_where_it_is_high():
    mri, _ = pair()
    heat = mri.replaced(torch.zeros_like(mri.array))
    k, j, i = 22, 22, 22
    heat.array[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = 1.0
    place = mri.points_ras(torch.tensor([[k, j, i]]))
    drawn = figures.heatmap(mri, heat, torch.cat([place, place + 100]))
    for ax, plane in zip(drawn.axes, figures.PLANES, strict=False):
        alpha = np.asarray(ax.images[1].get_alpha())
        assert alpha.max() == 1
        assert (alpha > 0).mean() < 0.05
        (dots,) = ax.collections
        expected = plane.coordinates(place.double().numpy())[:, :2]
        np.testing.assert_allclose(dots.get_offsets(), expected, atol=1e-3)
    assert drawn.get_suptitle().startswith("2 keypoints")


def test_similarity_marks_the_best_place_and_tells_its_distance():
    mri, _ = pair()
    values = torch.rand(mri.shape, generator=torch.Generator().manual_seed(0)) / 2
    values[20, 24, 18] = 0.9
    best = mri.points_ras(torch.tensor([[20, 24, 18]]))[0]
    drawn = figures.similarity(mri, mri.replaced(values), best + torch.tensor([0.0, 2.0, 0.0]))
    assert "2.0 mm from the true one" in drawn.get_suptitle()
    for ax, plane in zip(drawn.axes, figures.PLANES, strict=False):
        ring = ax.collections[0].get_offsets()
        np.testing.assert_allclose(ring[0], plane.coordinates(best.double().numpy())[:2], atol=1e-3)


def test_right_matches_are_parallel_in_space():
    result = outcome()
    drawn = figures.matches_3d(*pair(), TRUTH, *result.matched_points(), result.inliers)
    space = drawn.axes[0]
    assert (space.get_xlabel(), space.get_ylabel(), space.get_zlabel()) == (
        "R (mm)",
        "A (mm)",
        "S (mm)",
    )
    wrong, right = (c for c in space.collections if isinstance(c, Line3DCollection))
    ways = [np.subtract(*line[::-1]) for line in right._segments3d]
    assert len(ways) == 60
    np.testing.assert_allclose(ways, np.broadcast_to(ways[0], (60, 3)), atol=1e-3)
    assert abs(ways[0][0]) > 20
    assert np.std([np.subtract(*line) for line in wrong._segments3d], axis=0).max() > 1


def test_every_picture_of_a_registration():
    named = figures.of_registration(outcome(), *pair())
    assert sorted(named) == [
        "checkerboard.png",
        "keypoints.png",
        "matches.png",
        "matches_3d.png",
        "overlay.png",
    ]
    refused = figures.of_registration(outcome(accepted=False, found=False), *pair())
    assert sorted(refused) == ["keypoints.png", "matches.png", "matches_3d.png"]
