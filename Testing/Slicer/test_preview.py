"""A doubtful result is shown, and moves nothing until a person has decided."""

from __future__ import annotations

import numpy as np
import pytest
from cases import TRUTH, check_in_world, choose, make_volume, pose, registered, slice_views, world
from cases import transform as transform_above


@pytest.fixture
def doubtful(panel, volumes, wait, worker):
    registered(panel, wait, volumes, "doubt", worker)
    return panel


def test_nothing_is_moved_and_the_reasons_are_given(doubtful, volumes):
    ui = doubtful.ui
    assert "DOUBTFUL: shown as a preview, not applied" in ui.verdictLabel.text
    assert "Only 4 of 40 matches agree" in ui.verdictLabel.text
    assert "#8a5a00" in ui.verdictLabel.styleSheet
    assert "Doubtful result" in ui.statusLabel.text
    assert volumes[1].GetParentTransformNode() is None
    assert not ui.undoButton.enabled
    assert ui.applyButton.visible
    assert ui.discardButton.visible


def test_the_preview_lies_where_the_result_says(panel, scene, volumes, wait, worker):
    mri, ius = volumes
    views = slice_views(scene)
    transform_above(scene, "moved", pose(20, 3, 4, 5), mri)
    registered(panel, wait, volumes, "doubt", worker)
    shown = panel.logic.parameters.previewVolume
    assert "preview, not applied" in shown.GetName()
    assert shown.GetImageData() is ius.GetImageData()
    np.testing.assert_allclose(world(shown), world(mri) @ TRUTH, atol=1e-6)
    for _, composite in views:
        assert composite.GetForegroundVolumeID() == shown.GetID()
    assert not shown.GetSaveWithScene()


def test_apply_moves_the_ultrasound_and_undo_takes_it_back(doubtful, volumes):
    mri, ius = volumes
    doubtful.ui.applyButton.click()
    check_in_world(mri, ius)
    assert "applied by you" in doubtful.ui.verdictLabel.text
    assert "#8a5a00" in doubtful.ui.verdictLabel.styleSheet
    assert doubtful.logic.parameters.previewVolume is None
    assert not doubtful.ui.applyButton.visible
    assert doubtful.ui.matchTable.rowCount == 40
    doubtful.ui.undoButton.click()
    assert ius.GetParentTransformNode() is None
    assert "Nothing registered" in doubtful.ui.verdictLabel.text


def test_discard_leaves_nothing(doubtful, scene, volumes):
    doubtful.ui.discardButton.click()
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 0
    assert doubtful.logic.parameters.previewVolume is None
    assert not doubtful.ui.applyButton.visible
    assert volumes[1].GetParentTransformNode() is None


def test_the_next_registration_takes_the_preview_away(doubtful, volumes, wait, worker):
    registered(doubtful, wait, volumes, "accept", worker)
    assert doubtful.logic.parameters.previewVolume is None
    assert "ACCEPTED" in doubtful.ui.verdictLabel.text
    assert not doubtful.ui.applyButton.visible


def test_a_preview_of_other_images_is_not_applied(doubtful, volumes):
    choose(doubtful, volumes[0], make_volume("other", 7))
    assert not doubtful.ui.applyButton.enabled
    assert "OUTDATED" in doubtful.ui.verdictLabel.text
    choose(doubtful, *volumes)
    assert doubtful.ui.applyButton.enabled


def test_from_the_console(logic, volumes):
    from CrossKEYSlicer.problem import Problem

    one = logic("doubt")
    result = one.register(*volumes)
    assert not result["accepted"]
    assert volumes[1].GetParentTransformNode() is None
    one.applyPreview()
    check_in_world(*volumes)
    with pytest.raises(Problem, match="no preview"):
        one.applyPreview()
