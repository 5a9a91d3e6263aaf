"""Landmarks of one image found in another: by clicks, and from the console."""

from __future__ import annotations

import fake_worker
import numpy as np
import pytest
from cases import landmarks, make_volume, pause, pose, save, slice_views, transform, world

NAMES = ["tumour", "sulcus", "ventricle"]


@pytest.fixture
def points(scene, volumes):
    """Three of them, inside the first image."""
    return landmarks(scene, "Landmarks", inside(volumes[0], 3), NAMES)


def inside(image, count, row=20) -> np.ndarray:
    """Places ``[N, 3]`` in an image's own coordinates, which the fake worker finds within iUS."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    ijk = np.array([[8.0 + 2 * i, row, 11 + i, 1] for i in range(count)])
    return (ijk @ slicer.util.arrayFromVTKMatrix(matrix).T)[:, :3]


def choose(panel, here, there, points):
    panel.ui.landmarksSection.collapsed = False
    panel.ui.landmarksFromSelector.setCurrentNode(here)
    panel.ui.landmarksToSelector.setCurrentNode(there)
    panel.ui.landmarkPointsSelector.setCurrentNode(points)


def find(panel, wait, volumes, points):
    choose(panel, *volumes, points)
    panel.ui.findButton.click()
    wait(lambda: not panel.logic.busy)


def cells(panel, column):
    table = panel.ui.landmarkTable
    return [table.item(row, column).text() for row in range(table.rowCount)]


def positions(node) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromMarkupsControlPoints(node, world=True).reshape(-1, 3)


def moved(points) -> np.ndarray:
    """Where the fake worker finds them."""
    return np.array([fake_worker.moved(list(point)) for point in points])


def test_what_is_missing_is_said(panel, volumes, points):
    ui = panel.ui
    assert not ui.findButton.enabled
    assert "in which the points are placed" in ui.findButton.toolTip
    choose(panel, volumes[0], None, points)
    assert "in which to find the points" in ui.findButton.toolTip
    choose(panel, volumes[0], volumes[0], points)
    assert "two different" in ui.findButton.toolTip
    choose(panel, *volumes, None)
    assert "press Place" in ui.findButton.toolTip
    choose(panel, *volumes, points)
    assert ui.findButton.enabled
    points.RemoveAllControlPoints()
    ui.findButton.click()
    assert "'Landmarks' holds no points" in ui.statusLabel.text
    points.AddControlPoint(0, 0, 900, "lost")
    ui.findButton.click()
    assert "'lost' lies outside 'MRI'" in ui.statusLabel.text
    assert panel.logic.job is None
    assert panel.logic.worker.pid == 0


def test_found_points_and_how_sure_they_are(panel, scene, volumes, points, wait):
    find(panel, wait, volumes, points)
    found = panel.logic.parameters.foundLandmarks
    np.testing.assert_allclose(positions(found), moved(positions(points)), atol=1e-4)
    assert [found.GetNthControlPointLabel(i) for i in range(3)] == NAMES
    assert [found.GetNthControlPointSelected(i) for i in range(3)] == [True, False, False]
    display = found.GetDisplayNode()
    assert display.GetSelectedColor() != display.GetColor()
    assert found.GetNthControlPointDescription(1) == "score 0.80, spread 2.5 mm"
    assert cells(panel, 0) == NAMES
    assert cells(panel, 1) == ["0.90", "0.80", "0.50"]
    assert cells(panel, 2) == ["0.6", "2.5", "30.0"]
    good, check, bad = cells(panel, 3)
    assert good == "good"
    assert check == "check: spread too large"
    assert bad == "do not trust: spread too large, score too low"
    colours = [panel.ui.landmarkTable.item(i, 3).background().color().name() for i in range(3)]
    assert colours == ["#1b7a3a", "#8a5a00", "#b3261e"]
    assert panel.ui.statusLabel.text == "3 landmarks in 0 s, 1 of them good."
    tree = scene.GetSubjectHierarchyNode()
    items = [tree.GetItemByDataNode(node) for node in (found, panel.logic.parameters.landmarkTable)]
    assert {tree.GetItemName(tree.GetItemParent(item)) for item in items} == {"CrossKEY"}


def test_what_the_image_does_not_show_is_not_trusted(panel, scene, volumes, wait):
    five = landmarks(scene, "five", inside(volumes[0], 5), list("abcde"))
    find(panel, wait, volumes, five)
    assert cells(panel, 3)[3:] == ["good", "do not trust: outside the image"]
    found = panel.logic.parameters.foundLandmarks
    assert [found.GetNthControlPointSelected(i) for i in (3, 4)] == [True, False]


def test_again_fills_the_same_nodes(panel, scene, volumes, points, wait):
    find(panel, wait, volumes, points)
    p = panel.logic.parameters
    nodes, before = (p.foundLandmarks, p.landmarkTable), scene.GetNumberOfNodes()
    points.RemoveNthControlPoint(1)
    points.SetNthControlPointLabel(1, "other")
    panel.ui.findButton.click()
    wait(lambda: not panel.logic.busy)
    assert (p.foundLandmarks, p.landmarkTable) == nodes
    assert scene.GetNumberOfNodes() == before
    assert cells(panel, 0) == ["tumour", "other"]
    np.testing.assert_allclose(positions(nodes[0]), moved(positions(points)), atol=1e-4)


def test_what_the_console_finds_is_shown(panel, logic, volumes, points):
    one = logic()
    for count in (3, 2):
        one.propagateLandmarks(*volumes, points)
        assert cells(panel, 0) == NAMES[:count]
        points.RemoveNthControlPoint(2)


def test_in_the_world_under_transforms(panel, scene, volumes, points, wait):
    """Each image and the points under transforms of their own; and moved on afterwards."""
    here, there = volumes
    own = positions(points).copy()
    transform(scene, "first", pose(30, 5, 6, 7), here)
    transform(scene, "second", pose(-50, -40, 3, 2), there)
    turned = pose(10, 1, 2, 3)
    transform(scene, "third", turned, points)
    points_in_world = own @ world(here)[:3, :3].T + world(here)[:3, 3]
    back = np.linalg.inv(turned)
    for i, point in enumerate(points_in_world @ back[:3, :3].T + back[:3, 3]):
        points.SetNthControlPointPosition(i, *point)
    find(panel, wait, volumes, points)
    found = panel.logic.parameters.foundLandmarks
    expected = moved(own) @ world(there)[:3, :3].T + world(there)[:3, 3]
    np.testing.assert_allclose(positions(found), expected, atol=1e-3)
    there.SetAndObserveTransformNodeID(None)
    wait(lambda: found.GetParentTransformNode() is None)
    np.testing.assert_allclose(positions(found), moved(own), atol=1e-3)


def test_followed_on_into_a_third_image(panel, volumes, points, wait):
    """What was found becomes the points to find, and is not overwritten."""
    find(panel, wait, volumes, points)
    first = panel.logic.parameters.foundLandmarks
    before = positions(first).copy()
    third = make_volume("a year later", 1)
    import slicer

    for i, point in enumerate(inside(volumes[1], 3)):
        first.SetNthControlPointPosition(i, *point)
    before = positions(first).copy()
    find(panel, wait, (volumes[1], third), first)
    second = panel.logic.parameters.foundLandmarks
    assert second is not first
    np.testing.assert_allclose(positions(first), before)
    np.testing.assert_allclose(positions(second), moved(before), atol=1e-4)
    assert slicer.mrmlScene.IsNodePresent(first)


def test_a_selected_row_moves_each_view_to_its_point(panel, scene, volumes, points, wait):
    """Two images beside each other: where it was placed, and where it was found."""
    import slicer

    views = slice_views(scene)
    for (_node, composite), volume in zip(views, volumes, strict=True):
        composite.SetBackgroundVolumeID(volume.GetID())
    transform(scene, "moved", pose(20, 30, 40, 50), volumes[1])
    find(panel, wait, volumes, points)
    found = panel.logic.parameters.foundLandmarks
    for row in (2, 0):
        panel.ui.landmarkTable.selectRow(row)
        for (node, _composite), place in zip(views, (points, found), strict=True):
            centre = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3]
            np.testing.assert_allclose(centre, positions(place)[row], atol=1e-3)


def test_an_image_that_no_view_shows_is_brought(panel, scene, volumes, points, wait):
    views = slice_views(scene)
    find(panel, wait, volumes, points)
    panel.ui.landmarkTable.selectRow(0)
    assert {c.GetBackgroundVolumeID() for _, c in views} == {volumes[1].GetID()}


def test_similarity_map(panel, scene, volumes, points, wait):
    import slicer

    views = slice_views(scene)
    transform(scene, "moved", pose(20, 30, 40, 50), volumes[1])
    find(panel, wait, volumes, points)
    panel.ui.similarityCheckBox.click()
    assert "Select a point" in panel.ui.statusLabel.text
    p = panel.logic.parameters
    maps = []
    for row in (0, 1):
        panel.ui.landmarkTable.selectRow(row)
        wait(lambda: not panel.logic.busy)
        maps.append(p.similarityMap)
        assert p.similarityMap.GetName() == f"Similarity to {NAMES[row]}"
        array = slicer.util.arrayFromVolume(p.similarityMap)
        assert (array.max(), array.shape) == (1.0, (8, 8, 8))
        bounds = np.zeros(6)
        p.similarityMap.GetRASBounds(bounds)
        middle = bounds.reshape(3, 2).mean(axis=1)
        assert np.linalg.norm(middle - positions(p.foundLandmarks)[row]) < 4
        for _, composite in views:
            assert composite.GetBackgroundVolumeID() == volumes[1].GetID()
            assert composite.GetForegroundVolumeID() == p.similarityMap.GetID()
            assert composite.GetForegroundOpacity() > 0.3
    assert maps[0] is maps[1]
    first = panel.logic.job
    panel.ui.similarityCheckBox.click()
    assert not any(composite.GetForegroundVolumeID() for _, composite in views)
    panel.ui.similarityCheckBox.click()
    assert panel.logic.job is first, "the map is there already"
    assert all(composite.GetForegroundVolumeID() for _, composite in views)
    panel.ui.findButton.click()
    wait(lambda: panel.logic.job.kind == "similarity" and not panel.logic.busy)
    assert panel.logic.job is not first, "found anew, mapped anew"


def test_a_row_selected_while_a_map_is_made(panel, volumes, points, wait, worker):
    """The last one selected is the one that is shown in the end."""
    find(panel, wait, volumes, points)
    panel.logic.worker.stop()
    panel.logic.worker = worker("accept", 0.3)
    panel.ui.similarityCheckBox.click()
    panel.ui.landmarkTable.selectRow(0)
    panel.ui.landmarkTable.selectRow(2)
    assert panel.logic.busy
    name = "Similarity to ventricle"
    p = panel.logic.parameters
    wait(lambda: not panel.logic.busy and p.similarityMap and p.similarityMap.GetName() == name)


def test_update_when_a_point_is_let_go(panel, volumes, points, wait):
    import slicer

    find(panel, wait, volumes, points)
    panel.ui.landmarkTable.selectRow(1)
    first = panel.logic.job
    panel.ui.landmarksAgainCheckBox.click()
    goal = inside(volumes[0], 4)[3]
    markups = slicer.vtkMRMLMarkupsNode
    points.InvokeEvent(markups.PointStartInteractionEvent)
    points.SetNthControlPointPosition(1, *goal)
    pause(0.5)
    assert panel.logic.job is first, "it is still being dragged"
    points.InvokeEvent(markups.PointEndInteractionEvent)
    wait(lambda: panel.logic.job is not first and not panel.logic.busy)
    found = panel.logic.parameters.foundLandmarks
    np.testing.assert_allclose(positions(found)[1], fake_worker.moved(list(goal)), atol=1e-4)
    assert panel.ui.landmarkTable.currentRow() == 1
    second = panel.logic.job
    points.AddControlPoint(*goal, "new")
    wait(lambda: panel.logic.job is not second and not panel.logic.busy)
    assert cells(panel, 0) == [*NAMES, "new"]
    panel.ui.landmarksAgainCheckBox.click()
    third = panel.logic.job
    points.RemoveNthControlPoint(3)
    pause(0.5)
    assert panel.logic.job is third, "the option is off"


def test_points_at_the_mouse_pointer_are_none_yet(logic, volumes, points):
    import slicer

    points.AddControlPoint(0, 0, 0, "preview")
    preview = slicer.vtkMRMLMarkupsNode.PositionPreview
    points.SetNthControlPointPosition(3, 0, 0, 900, preview)
    assert logic().propagateLandmarks(*volumes, points)["labels"] == NAMES


def test_cancel_is_the_end_of_it(panel, volumes, points, wait, worker):
    from CrossKEYSlicer import words

    panel.logic.worker = worker("slow")
    choose(panel, *volumes, points)
    panel.ui.landmarksAgainCheckBox.click()
    panel.ui.findButton.click()
    wait(lambda: panel.ui.statusLabel.text == words.STAGES["describing the images"])
    points.AddControlPoint(*inside(volumes[0], 4)[3])
    panel.ui.cancelButton.click()
    pause(0.5)
    assert not panel.logic.busy
    assert panel.ui.statusLabel.text == "Cancelled."
    assert panel.logic.parameters.foundLandmarks is None
    assert panel.ui.findButton.enabled


@pytest.mark.parametrize(("mode", "said"), [("crash", "out of memory"), ("fail", "too little")])
def test_errors_are_told(panel, volumes, points, wait, worker, mode, said):
    panel.logic.worker = worker(mode)
    find(panel, wait, volumes, points)
    assert said in panel.ui.statusLabel.text
    assert "#b3261e" in panel.ui.statusLabel.styleSheet
    assert panel.ui.landmarkTable.rowCount == 0


def test_place_begins_a_list(panel, scene, volumes):
    import slicer

    panel.ui.placeButton.click()
    node = panel.ui.landmarkPointsSelector.currentNode()
    assert node.GetName() == "Landmarks"
    interaction = scene.GetNthNodeByClass(0, "vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place
    selection = scene.GetNthNodeByClass(0, "vtkMRMLSelectionNode")
    assert selection.GetActivePlaceNodeID() == node.GetID()
    panel.ui.placeButton.click()
    assert panel.ui.landmarkPointsSelector.currentNode() is node


def test_saved_and_opened(panel, scene, volumes, points, wait, tmp_path):
    transform(scene, "moved", pose(20, 30, 40, 50), volumes[1])
    find(panel, wait, volumes, points)
    panel.ui.similarityCheckBox.click()
    panel.ui.landmarkTable.selectRow(0)
    wait(lambda: not panel.logic.busy)
    panel.ui.landmarksAgainCheckBox.click()
    before = positions(panel.logic.parameters.foundLandmarks).copy()
    shown = [cells(panel, column) for column in range(4)]
    scene.SetURL(str(tmp_path / "scene.mrml"))
    save(scene, tmp_path)
    scene.Clear(0)
    assert panel.ui.landmarkTable.rowCount == 0
    assert scene.Connect() == 1
    ui, p = panel.ui, panel.logic.parameters
    assert [cells(panel, column) for column in range(4)] == shown
    assert (ui.landmarksAgainCheckBox.checked, ui.similarityCheckBox.checked) == (True, True)
    assert ui.landmarksFromSelector.currentNode().GetName() == "MRI"
    np.testing.assert_allclose(positions(p.foundLandmarks), before, atol=1e-3)
    nodes = (p.foundLandmarks, p.landmarkTable, p.similarityMap)
    ui.findButton.click()
    wait(lambda: not panel.logic.busy)
    assert panel.logic.job.state == "done"
    assert nodes == (p.foundLandmarks, p.landmarkTable, p.similarityMap)


def test_undone(panel, scene, volumes, points, wait):
    """The table follows what the scene's own undo leaves of the points."""
    find(panel, wait, volumes, points)
    found = panel.logic.parameters.foundLandmarks
    scene.SetUndoOn()
    found.UndoEnabledOn()
    scene.SaveStateForUndo()
    found.SetNthControlPointPosition(1, 0, 0, 0)
    panel.logic.parameters.parameterNode.Modified()
    assert cells(panel, 0) == ["tumour", "ventricle"], "it is no longer where it was found"
    scene.Undo()
    assert cells(panel, 0) == NAMES
    scene.SetUndoOff()
    scene.ClearUndoStack()
    scene.ClearRedoStack()


def test_a_found_point_that_was_deleted(panel, volumes, points, wait):
    """The rest stay, and a row is the point of its name."""
    find(panel, wait, volumes, points)
    panel.logic.parameters.foundLandmarks.RemoveNthControlPoint(0)
    panel.ui.similarityCheckBox.click()
    panel.ui.landmarkTable.selectRow(1)
    wait(lambda: not panel.logic.busy)
    assert cells(panel, 0) == NAMES[1:]
    shown = panel.logic.parameters.similarityMap.GetName()
    assert shown == f"Similarity to {cells(panel, 0)[panel.ui.landmarkTable.currentRow()]}"


def test_an_image_that_is_gone_takes_its_landmarks_along(panel, scene, volumes, points, wait):
    find(panel, wait, volumes, points)
    scene.RemoveNode(volumes[1])
    panel.ui.landmarkTable.selectRow(0)
    assert panel.ui.landmarkTable.rowCount == 0
    assert not panel.ui.findButton.enabled


def test_from_the_console(logic, scene, volumes, points):
    from CrossKEYSlicer.problem import Problem

    one = logic()
    result = one.propagateLandmarks(*volumes, points)
    assert result["labels"] == NAMES
    assert result["trust"] == ["good", "check", "absent"]
    np.testing.assert_allclose(result["points"], positions(one.parameters.foundLandmarks))
    assert one.similarityMap(2).GetName() == "Similarity to ventricle"
    assert not one.job.folder.exists()
    with pytest.raises(Problem, match="no such point"):
        one.similarityMap(3)
    with pytest.raises(Problem, match="two different"):
        one.propagateLandmarks(volumes[0], volumes[0], points)
    with pytest.raises(Problem, match="Select a list of points"):
        one.propagateLandmarks(*volumes, None)
    with pytest.raises(Problem, match="landmarksTo cannot be"):
        one.propagateLandmarks(volumes[0], points, points)


@pytest.mark.parametrize("image", [0, 1])
def test_under_a_bent_transform(logic, scene, volumes, points, image):
    from CrossKEYSlicer.problem import Problem

    bent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    volumes[image].SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(Problem, match="not linear"):
        logic().propagateLandmarks(*volumes, points)
