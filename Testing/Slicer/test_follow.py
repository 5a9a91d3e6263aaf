"""Keypoints and match lines stay right when MRI or ultrasound are moved after registration."""

from __future__ import annotations

import fake_worker
import numpy as np
import pytest
from cases import choose, make_volume, pose, registered, save, transform, world


def places(scene, node) -> np.ndarray:
    """Where the points of a list, or the ends ``[K, 2, 3]`` of lines, are seen."""
    import slicer

    if node.IsA("vtkMRMLMarkupsNode"):
        return slicer.util.arrayFromMarkupsControlPoints(node, world=True)
    ends = slicer.util.arrayFromModelPoints(node)
    return (np.c_[ends, np.ones(len(ends))] @ world(node).T)[:, :3].reshape(-1, 2, 3)


def check_places(scene, parameters, mri, ius):
    """Of the lists and of the lines, in the world, from the volumes and the worker's answer."""
    matches = fake_worker.matches()
    order = np.argsort(-np.array(matches["score"]), kind="stable")
    ends = []
    for name, volume in (("mri", mri), ("ius", ius)):
        points = np.c_[np.array(matches[name])[order], np.ones(len(order))] @ world(volume).T
        ends.append(points[:, :3])
        node = getattr(parameters, f"{name}Keypoints")
        np.testing.assert_allclose(places(scene, node), points[:, :3], atol=1e-4)
    np.testing.assert_allclose(
        places(scene, parameters.matchLines), np.stack(ends, axis=1), atol=1e-4
    )


def settle(app, wait):
    import time

    end = time.monotonic() + 0.15
    wait(lambda: time.monotonic() > end)


@pytest.mark.parametrize("moved", ["probe", "patient", "moved MRI"])
def test_they_follow_a_transform(panel, scene, volumes, wait, app, moved):
    from CrossKEYSlicer.scene import chain

    mri, ius = volumes
    probe = transform(scene, "probe", pose(40, 5, 6, 7), ius)
    mri_transform = transform(scene, "moved MRI", pose(15, -3, 2, 30), mri)
    patient = transform(scene, "patient", pose(25, 100, 0, -40), probe, mri_transform)
    registered(panel, wait, volumes)
    check_places(scene, panel.logic.parameters, mri, ius)
    node = {"probe": probe, "patient": patient, "moved MRI": mri_transform}[moved]
    chain.set_matrix(node, pose(-33, 9, 8, 7))
    settle(app, wait)
    check_places(scene, panel.logic.parameters, mri, ius)


def test_they_follow_a_volume_that_is_hung_elsewhere(panel, scene, volumes, wait, app):
    mri, ius = volumes
    registered(panel, wait, volumes)
    transform(scene, "by hand", pose(70, 1, 2, 3), mri)
    settle(app, wait)
    check_places(scene, panel.logic.parameters, mri, ius)
    parent = ius.GetParentTransformNode().GetID()
    ius.SetAndObserveTransformNodeID(None)
    settle(app, wait)
    check_places(scene, panel.logic.parameters, mri, ius)
    assert "Nothing registered" in panel.ui.verdictLabel.text
    assert not panel.ui.undoButton.enabled
    ius.SetAndObserveTransformNodeID(parent)
    settle(app, wait)
    check_places(scene, panel.logic.parameters, mri, ius)
    assert "was moved since" in panel.ui.verdictLabel.text
    mri.SetAndObserveTransformNodeID(None)
    settle(app, wait)
    assert "ACCEPTED" in panel.ui.verdictLabel.text
    assert panel.ui.undoButton.enabled


def test_what_is_chosen_afterwards_does_not_matter(panel, scene, volumes, wait, app):
    """Another ultrasound and another output transform are for the next registration."""
    mri, ius = volumes
    registered(panel, wait, volumes)
    before = world(ius)
    other = make_volume("another", 7)
    own = transform(scene, "my own", pose(5, 1, 1, 1), other)
    choose(panel, mri, other)
    panel.ui.transformSelector.setCurrentNode(own)
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(other), pose(5, 1, 1, 1))
    np.testing.assert_allclose(world(ius), np.eye(4))
    settle(app, wait)
    check_places(scene, panel.logic.parameters, mri, ius)
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), before)
    panel.ui.undoButton.click()
    np.testing.assert_allclose(world(other), pose(5, 1, 1, 1))
    assert ius.GetParentTransformNode() is None


def test_no_lines_where_they_cannot_be_right(panel, scene, volumes, wait, app):
    _mri, ius = volumes
    registered(panel, wait, volumes)
    lines = panel.logic.parameters.matchLines
    parent = ius.GetParentTransformNode().GetID()
    bent = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bent")
    ius.SetAndObserveTransformNodeID(bent.GetID())
    settle(app, wait)
    assert lines.GetPolyData().GetNumberOfLines() == 0
    ius.SetAndObserveTransformNodeID(parent)
    settle(app, wait)
    assert lines.GetPolyData().GetNumberOfLines() == 40
    scene.RemoveNode(ius)
    settle(app, wait)
    assert lines.GetPolyData().GetNumberOfLines() == 0


def test_deleted_lines_do_not_come_back_by_moving(panel, scene, volumes, wait, app):
    from CrossKEYSlicer.scene import chain

    registered(panel, wait, volumes)
    p = panel.logic.parameters
    scene.RemoveNode(p.matchLines)
    scene.RemoveNode(p.iusKeypoints)
    chain.set_matrix(p.registeredTransform, pose(3, 2, 1, 0))
    settle(app, wait)
    assert p.matchLines is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0


def test_a_fast_tracker_does_not_keep_slicer_busy(panel, scene, volumes, wait, app):
    import slicer
    from CrossKEYSlicer.scene import chain

    mri, ius = volumes
    probe = transform(scene, "probe", np.eye(4), ius)
    registered(panel, wait, volumes)
    settle(app, wait)
    drawn = []
    panel.logic.parameters.matchLines.AddObserver(
        slicer.vtkMRMLModelNode.PolyDataModifiedEvent, lambda *_: drawn.append(1)
    )
    for turn in range(300):
        chain.set_matrix(probe, pose(turn, 1, 2, 3))
        app.processEvents()
    settle(app, wait)
    assert 1 <= len(drawn) < 30
    check_places(scene, panel.logic.parameters, mri, ius)


def test_they_follow_in_a_scene_that_was_loaded(panel, scene, volumes, wait, app, tmp_path):
    from CrossKEYSlicer.scene import chain

    scene.SetURL(str(tmp_path / "scene.mrml"))
    transform(scene, "probe", pose(40, 5, 6, 7), volumes[1])
    registered(panel, wait, volumes)
    save(scene, tmp_path)
    assert scene.Connect() == 1
    p = panel.logic.parameters
    chain.set_matrix(scene.GetFirstNodeByName("probe"), pose(-33, 9, 8, 7))
    settle(app, wait)
    check_places(scene, p, p.mri, p.ius)


def test_from_the_console_without_a_panel(logic, scene, volumes, wait, app):
    from CrossKEYSlicer.scene import chain

    mri, ius = volumes
    probe = transform(scene, "probe", pose(40, 5, 6, 7), ius)
    one = logic()
    one.register(mri, ius)
    chain.set_matrix(probe, pose(-33, 9, 8, 7))
    settle(app, wait)
    check_places(scene, one.parameters, mri, ius)
