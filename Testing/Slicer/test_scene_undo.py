"""The scene's own undo, which some applications switch on for some kinds of nodes."""

from __future__ import annotations

import numpy as np
import pytest
from cases import check_in_world, choose, landmarks, pose, registered, world

PLACED = ("vtkMRMLLinearTransformNode", "vtkMRMLMarkupsFiducialNode")
ALL = (*PLACED, "vtkMRMLModelNode", "vtkMRMLTableNode", "vtkMRMLScalarVolumeNode")


@pytest.fixture
def undoable(scene):
    """Switches undo on for the present and later nodes of some classes; off again in the end."""
    import slicer

    patterns = []  # what the scene makes new nodes of these classes after

    def switch_on(kinds, *nodes):
        scene.SetUndoOn()
        for kind in kinds:
            if scene.GetDefaultNodeByClass(kind) is None:
                scene.AddDefaultNode(getattr(slicer, kind)())
            patterns.append(scene.GetDefaultNodeByClass(kind))
        for node in (*patterns, *nodes):
            node.UndoEnabledOn()

    yield switch_on
    scene.SetUndoOff()
    scene.ClearUndoStack()
    scene.ClearRedoStack()
    for pattern in patterns:
        pattern.UndoEnabledOff()


def chosen(panel):
    ui = panel.ui
    return (
        ui.mriSelector.currentNode(),
        ui.iusSelector.currentNode(),
        ui.fadeSlider.value,
        ui.deviceComboBox.currentText,
        ui.minutesSpinBox.value,
    )


def make_choices(panel, volumes):
    choose(panel, *volumes)
    panel.ui.fadeSlider.value = 0.25
    panel.ui.deviceComboBox.currentText = "cpu"
    panel.ui.minutesSpinBox.value = 3.5
    return chosen(panel)


@pytest.mark.parametrize("kinds", [PLACED, ALL])
def test_choices_survive_and_the_verdict_is_honest(panel, scene, volumes, wait, undoable, kinds):
    mri, ius = volumes
    undoable(kinds, *(volumes if kinds == ALL else ()))
    before = make_choices(panel, volumes)
    scene.SaveStateForUndo()
    registered(panel, wait, volumes)
    assert "ACCEPTED" in panel.ui.verdictLabel.text
    scene.Undo()
    assert chosen(panel) == before
    assert ius.GetParentTransformNode() is None
    assert "Nothing registered" in panel.ui.verdictLabel.text
    assert not panel.ui.undoButton.enabled
    registered(panel, wait, volumes)
    check_in_world(mri, ius)
    assert "ACCEPTED" in panel.ui.verdictLabel.text
    panel.ui.undoButton.click()
    np.testing.assert_allclose(world(ius), np.eye(4))


def test_choices_survive_with_the_parameters_undone_as_well(panel, scene, volumes, wait, undoable):
    _mri, ius = volumes
    undoable(ALL, *volumes, panel.logic.parameters.parameterNode)
    before = make_choices(panel, volumes)
    scene.SaveStateForUndo()
    registered(panel, wait, volumes)
    after = world(ius)
    scene.Undo()
    assert chosen(panel) == before
    assert "Nothing registered" in panel.ui.verdictLabel.text
    scene.Redo()
    assert chosen(panel) == before
    np.testing.assert_allclose(world(ius), after)
    assert "ACCEPTED" in panel.ui.verdictLabel.text
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), np.eye(4))


def test_undoing_the_second_registration_shows_the_first(panel, scene, volumes, wait, undoable):
    """The transform has its former matrix again: that is "before", and the panel says so."""
    from CrossKEYSlicer.scene import chain

    _mri, ius = volumes
    undoable(PLACED)
    registered(panel, wait, volumes)
    chain.set_matrix(ius.GetParentTransformNode(), pose(5, 1, 1, 1))
    scene.SaveStateForUndo()
    registered(panel, wait, volumes)
    after = world(ius)
    scene.Undo()
    np.testing.assert_allclose(world(ius), pose(5, 1, 1, 1))
    assert not panel.ui.afterCheckBox.checked
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), after)


@pytest.mark.parametrize("kinds", [PLACED, ALL])
def test_landmarks_are_undone_and_found_again(panel, scene, volumes, undoable, kinds):
    points = landmarks(scene, "given", [[-20.0, 30, 0], [-10, 20, 5]], ["a", "b"])
    undoable(kinds, points)
    scene.SaveStateForUndo()
    table = panel.ui.landmarkTable
    panel.logic.propagateLandmarks(*volumes, points)
    assert table.rowCount == 2
    scene.Undo()
    assert table.rowCount == 0
    panel.logic.propagateLandmarks(*volumes, points)
    assert table.rowCount == 2
    assert panel.logic.parameters.foundLandmarks.GetNumberOfControlPoints() == 2
