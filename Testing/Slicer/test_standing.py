"""A verdict is shown for the images and the place that it was given for, and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from cases import choose, make_volume, pause, pose, registered, transform, world

GREEN, AMBER, RED = "#1b7a3a", "#8a5a00", "#b3261e"


def banner(panel) -> str:
    return panel.ui.verdictLabel.text


def colour(panel) -> str:
    style = panel.ui.verdictLabel.styleSheet
    return next(c for c in (GREEN, AMBER, RED) if c in style)


def by_hand(panel) -> np.ndarray:
    """Move the ultrasound's transform as a person does; the matrix that it has then."""
    from CrossKEYSlicer.scene import chain

    node = panel.logic.parameters.registeredTransform
    matrix = pose(5, 1, 2, 3) @ chain.matrix_of(node)
    chain.set_matrix(node, matrix)
    pause(0.2)
    return matrix


def test_the_banner_names_pair_and_time(panel, volumes, wait):
    registered(panel, wait, volumes)
    assert colour(panel) == GREEN
    assert "iUS on MRI, 20" in banner(panel)


@pytest.mark.parametrize("which", [0, 1])
def test_another_image_makes_it_amber_and_going_back_green(panel, volumes, wait, which):
    registered(panel, wait, volumes)
    other = make_volume("other", 7)
    chosen = [other if n == which else volume for n, volume in enumerate(volumes)]
    choose(panel, *chosen)
    assert colour(panel) == AMBER
    assert "for another image" in banner(panel)
    assert "ACCEPTED" not in banner(panel)
    choose(panel, *volumes)
    assert colour(panel) == GREEN
    assert "ACCEPTED" in banner(panel)


@pytest.mark.parametrize("which", [0, 1])
def test_other_voxels_make_it_amber(panel, volumes, wait, which):
    import slicer

    registered(panel, wait, volumes)
    array = slicer.util.arrayFromVolume(volumes[which])
    array[4:8, 4:8, 4:8] += 50
    slicer.util.arrayFromVolumeModified(volumes[which])
    wait(lambda: colour(panel) == AMBER)
    assert "has changed since" in banner(panel)


def test_a_move_by_hand_makes_it_amber_and_moving_back_green(panel, volumes, wait):
    from CrossKEYSlicer.scene import chain

    registered(panel, wait, volumes)
    node = panel.logic.parameters.registeredTransform
    result = chain.matrix_of(node)
    by_hand(panel)
    assert colour(panel) == AMBER
    assert "was moved since" in banner(panel)
    chain.set_matrix(node, result)
    pause(0.2)
    assert colour(panel) == GREEN


def test_a_tracker_that_moves_the_ultrasound_makes_it_amber(panel, scene, volumes, wait):
    from CrossKEYSlicer.scene import chain

    tracker = transform(scene, "tracker", pose(3, 1, 0, 0), volumes[1])
    registered(panel, wait, volumes)
    assert colour(panel) == GREEN
    chain.set_matrix(tracker, pose(3, 6, 0, 0))
    pause(0.2)
    assert colour(panel) == AMBER


def test_a_new_registration_makes_it_green_again(panel, volumes, wait):
    registered(panel, wait, volumes)
    by_hand(panel)
    registered(panel, wait, volumes)
    assert colour(panel) == GREEN


def test_shown_as_before_it_stays_green(panel, volumes, wait):
    registered(panel, wait, volumes)
    panel.ui.afterCheckBox.click()
    pause(0.2)
    assert colour(panel) == GREEN


def test_a_refusal_is_outdated_by_another_image_too(panel, volumes, wait, worker):
    registered(panel, wait, volumes, "refuse", worker)
    assert colour(panel) == RED
    choose(panel, volumes[0], make_volume("other", 7))
    assert colour(panel) == AMBER
    assert "refused" in banner(panel)


def test_before_and_after_keep_what_a_person_set(panel, volumes, wait):
    registered(panel, wait, volumes)
    mine = by_hand(panel)
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(volumes[1]), np.eye(4))
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(volumes[1]), mine)
    assert colour(panel) == AMBER


def test_undo_says_that_it_discards_a_change_by_hand(panel, volumes, wait):
    registered(panel, wait, volumes)
    assert "by hand" not in panel.ui.undoButton.toolTip
    mine = by_hand(panel)
    assert "made by hand since then are lost" in panel.ui.undoButton.toolTip
    asked = []
    panel.ask = lambda text: bool(asked.append(text))
    panel.ui.undoButton.click()
    assert "by hand" in asked[0]
    np.testing.assert_allclose(world(volumes[1]), mine)
    panel.ask = lambda text: True
    panel.ui.undoButton.click()
    assert volumes[1].GetParentTransformNode() is None


def test_refused_means_refused_everywhere(panel, volumes, wait, worker):
    """After an accepted registration too: no table, no points, no lines, nothing to undo."""
    registered(panel, wait, volumes)
    where = world(volumes[1])
    registered(panel, wait, volumes, "refuse", worker)
    p = panel.logic.parameters
    assert panel.ui.matchTable.rowCount == 0
    for node in (p.mriKeypoints, p.iusKeypoints, p.inliers):
        assert node.GetNumberOfControlPoints() == 0
    assert p.matchLines.GetPolyData().GetNumberOfPoints() == 0
    assert not panel.ui.undoButton.enabled
    assert not panel.ui.afterCheckBox.enabled
    np.testing.assert_allclose(world(volumes[1]), where)
    registered(panel, wait, volumes, "accept", worker)
    assert panel.ui.matchTable.rowCount == 40
    assert panel.ui.undoButton.enabled


def test_an_image_that_changed_while_it_was_registered_is_outdated(panel, volumes, wait, worker):
    from CrossKEYSlicer import words

    panel.logic.worker = worker("accept", 0.5)
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: panel.ui.statusLabel.text.startswith(words.STAGES["keypoints"]))
    array = slicer_array(volumes[1])
    array[4:8, 4:8, 4:8] += 50
    wait(lambda: not panel.logic.busy)
    assert panel.logic.job.result["accepted"]
    assert colour(panel) == AMBER
    assert "iUS has changed since" in banner(panel)


def slicer_array(node):
    """The node's voxels, which are changed in place; the node is told."""
    import slicer

    array = slicer.util.arrayFromVolume(node)
    slicer.util.arrayFromVolumeModified(node)
    return array
