"""Preparing a patient's model from the panel, and never using another's by mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import choose, make_volume, pose, prepare, transform


@pytest.fixture
def saved(scene, tmp_path):
    """A scene that lies in a folder, where models are put then."""
    scene.SetURL(str(tmp_path / "scene.mrml"))
    return tmp_path


@pytest.fixture
def ready(panel, volumes, saved):
    panel.ui.mriSelector.setCurrentNode(volumes[0])
    panel.ui.iusSelector.setCurrentNode(volumes[1])
    panel.ui.prepareSection.collapsed = False
    return panel


def test_progress_table_and_plot(ready, wait, saved):
    import slicer

    assert "General model" in ready.ui.modelLabel.text
    seen = []
    shown = ready.logic.onChange
    ready.logic.onChange = lambda: (shown(), seen.append(ready.ui.progressBar.value))
    prepare(ready, wait)
    assert ready.logic.job.state == "done", ready.logic.job.message
    assert seen == sorted(seen)
    assert {5, 50, 100} <= set(seen)
    p = ready.logic.parameters
    columns = [
        slicer.util.arrayFromTableColumn(p.trainingTable, name)
        for name in ("Step", "Loss", "Precision within 5 mm")
    ]
    np.testing.assert_array_equal(columns[0], np.arange(1, 21))
    np.testing.assert_allclose(columns[1], 5 - 0.2 * np.arange(1, 21))
    np.testing.assert_allclose(columns[2][[0, 4, 5, 19]], [0, 0.1, 0.1, 0.4])
    assert p.trainingChart.GetNumberOfPlotSeriesNodes() == 2
    assert p.lossSeries.GetTableNode() is p.trainingTable
    ready.ui.chartButton.click()
    assert [path.suffix for path in saved.iterdir()] == [".pt"]
    assert "own model" in ready.ui.modelLabel.text


def test_the_model_is_used(ready, wait):
    prepare(ready, wait)
    ready.ui.registerButton.click()
    wait(lambda: not ready.logic.busy)
    assert ready.logic.job.result["request"]["model"] == ready.logic.parameters.modelPath
    ready.ui.forgetButton.click()
    ready.ui.registerButton.click()
    wait(lambda: not ready.logic.busy)
    assert ready.logic.job.result["request"]["model"] is None


def test_contrasts_and_folder_reach_the_worker(ready, wait, saved):
    third = make_volume("FLAIR", 3)
    ready.ui.secondContrastSelector.setCurrentNode(third)
    ready.ui.thirdContrastSelector.setCurrentNode(third)
    saved.mkdir(exist_ok=True)
    ready.ui.syntheticFolderEdit.currentPath = str(saved)
    ready.ui.minutesSpinBox.value = 3.5
    asked = []
    ask = ready.logic.worker.ask
    ready.logic.worker.ask = lambda request, listener: (
        asked.append(request),
        ask(request, listener),
    )
    prepare(ready, wait)
    assert ready.logic.job.result["contrasts"] == 2
    assert (asked[0]["minutes"], asked[0]["synthetic_us"]) == (3.5, str(saved))


def test_cancel_and_resume(ready, wait, worker, saved):
    ready.logic.worker = worker("slow")
    ready.ui.prepareButton.click()
    wait(lambda: "step 7 of 20" in ready.ui.statusLabel.text)
    ready.ui.cancelButton.click()
    assert ready.logic.job.state == "cancelled"
    assert not ready.logic.parameters.modelPath
    assert [path.name.endswith(".training.pt") for path in saved.iterdir()] == [True]
    ready.logic.worker = worker()
    prepare(ready, wait)
    assert ready.logic.job.result["history"] == {"first": 7}
    assert [path.name.endswith(".training.pt") for path in saved.iterdir()] == [False]


def test_another_mri_is_told(ready, wait):
    prepare(ready, wait)
    ready.ui.mriSelector.setCurrentNode(make_volume("other", 9))
    assert "belongs to another MRI" in ready.ui.modelLabel.text
    ready.ui.registerButton.click()
    assert not ready.logic.busy
    assert "belongs to another MRI" in ready.ui.statusLabel.text
    ready.ui.forgetButton.click()
    ready.ui.registerButton.click()
    wait(lambda: not ready.logic.busy)
    assert ready.logic.job.state == "done"


def test_a_changed_or_missing_file_is_told(ready, wait):
    from CrossKEYSlicer.problem import Problem

    prepare(ready, wait)
    path = Path(ready.logic.parameters.modelPath)
    path.write_text("another patient's model")
    with pytest.raises(Problem, match="was changed"):
        ready.logic.startRegistration()
    path.unlink()
    with pytest.raises(Problem, match="is gone"):
        ready.logic.startRegistration()


def test_a_moved_or_renamed_mri_keeps_its_model(ready, wait, scene, volumes):
    prepare(ready, wait)
    transform(scene, "moved", pose(20, 1, 2, 3), volumes[0])
    volumes[0].SetName("T1 of today")
    ready.logic.startRegistration()
    wait(lambda: not ready.logic.busy)
    assert ready.logic.job.state == "done"


def test_from_the_console(logic, volumes, saved):
    one = logic()
    result = one.prepare(volumes[0], minutes=1)
    assert Path(result["output"]).parent == saved
    assert one.parameters.modelPath == result["output"]
    assert len(one.parameters.modelSha256) == 64


def test_a_folder_is_picked_and_emptied(panel, tmp_path):
    edit, parameters = panel.ui.syntheticFolderEdit, panel.logic.parameters
    edit.currentPath = str(tmp_path)
    assert parameters.syntheticFolder == str(tmp_path)
    file = tmp_path / "file.nii.gz"
    file.touch()
    edit.currentPath = str(file)
    assert parameters.syntheticFolder == "", "a file was taken for a folder"
    edit.currentPath = str(tmp_path)
    edit.currentPath = ""
    assert parameters.syntheticFolder == ""


def test_a_folder_that_is_not_there_is_told(ready, tmp_path):
    ready.ui.syntheticFolderEdit.currentPath = str(tmp_path / "missing")
    ready.ui.prepareButton.click()
    assert "There is no folder" in ready.ui.statusLabel.text
    assert not ready.logic.busy


def test_what_is_being_typed_is_left_alone(panel, tmp_path):
    edit, parameters = panel.ui.syntheticFolderEdit, panel.logic.parameters
    edit.currentPath = str(tmp_path)
    half = str(tmp_path)[:-3]
    edit.currentPath = half
    parameters.minutes = 4.0  # makes the panel look at its parameters again
    assert edit.currentPath == half
    parameters.syntheticFolder = str(tmp_path.parent)  # from the console
    assert edit.currentPath == str(tmp_path.parent)


def test_progress_and_cancel_are_seen_whatever_was_folded(panel, volumes, wait, worker):
    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerSection.collapsed = True
    panel.ui.prepareSection.collapsed = False
    panel.ui.prepareButton.click()
    assert panel.ui.cancelButton.visible
    panel.ui.cancelButton.click()
