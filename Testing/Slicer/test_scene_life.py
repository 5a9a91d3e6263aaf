"""Saving, reopening and closing scenes, reloading the module, ending the application."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from cases import ROOT, check_in_world, choose, make_volume, prepare, registered, save, world


def test_everything_survives_saving_and_opening(panel, scene, volumes, wait, tmp_path):
    scene.SetURL(str(tmp_path / "scene.mrml"))
    choose(panel, *volumes)
    prepare(panel, wait)
    registered(panel, wait, volumes)
    panel.ui.fadeSlider.value = 0.25
    panel.ui.fromPresentCheckBox.click()
    panel.ui.deviceComboBox.currentText = "cpu"
    verdict, model = panel.ui.verdictLabel.text, panel.logic.parameters.modelPath
    after = world(volumes[1])
    save(scene, tmp_path)
    scene.Clear(0)
    assert panel.ui.mriSelector.currentNode() is None
    assert "Nothing registered" in panel.ui.verdictLabel.text
    assert scene.Connect() == 1
    ui, p = panel.ui, panel.logic.parameters
    mri, ius = ui.mriSelector.currentNode(), ui.iusSelector.currentNode()
    assert (mri.GetName(), ius.GetName()) == ("MRI", "iUS")
    assert ui.verdictLabel.text == verdict
    assert ui.matchTable.rowCount == 40
    assert ui.fadeSlider.value == 0.25
    assert ui.fromPresentCheckBox.checked
    assert (ui.deviceComboBox.currentText, p.device) == ("cpu", "cpu")
    assert p.modelPath == model
    assert "own model" in ui.modelLabel.text
    np.testing.assert_allclose(world(ius), after, atol=1e-6)
    names = ("mriKeypoints", "iusKeypoints", "inliers", "matchTable", "matchLines", "transform")
    nodes = {name: getattr(p, name) for name in names}
    assert all(nodes.values())
    ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), np.eye(4), atol=1e-9)
    ui.registerButton.click()
    wait(lambda: not panel.logic.busy)
    check_in_world(mri, ius)
    assert all(getattr(panel.logic.parameters, name) is node for name, node in nodes.items())


def test_a_panel_that_was_closed_is_tied_to_nothing(panel, scene, app):
    """Otherwise it would go on writing into the scene beside the panel that follows it."""
    parameters, ui = panel.logic.parameters, panel.ui
    for _ in range(3):
        scene.Clear(0)
    writes = []
    parameters.parameterNode.AddObserver("ModifiedEvent", lambda *_: writes.append(1))
    ui.fromPresentCheckBox.click()
    assert len(writes) == 1
    app.moduleManager().unload("CrossKEY")
    ui.fromPresentCheckBox.click()
    assert len(writes) == 1
    parameters.fade = 0.125
    assert ui.fadeSlider.value == 0.5


def test_a_panel_in_a_window_of_its_own(scene, volumes, worker, wait):
    """As a developer makes one: ``CrossKEYWidget()``."""
    from CrossKEYSlicer.panel.widget import CrossKEYWidget

    panel = CrossKEYWidget()
    panel.logic.worker = worker()
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: not panel.logic.busy)
    assert panel.logic.job.state == "done"
    scene.Clear(0)
    assert panel.ui.mriSelector.currentNode() is None
    panel.cleanup()
    panel.parent.deleteLater()


def test_scene_closed_in_the_middle(panel, scene, volumes, wait, worker, app):
    from CrossKEYSlicer import words

    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: panel.ui.statusLabel.text == words.STAGES["keypoints"])
    job = panel.logic.job
    scene.Clear(0)
    assert job.state == "cancelled"
    assert "scene was closed" in panel.ui.statusLabel.text
    assert panel.logic.worker.pid == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 0
    assert not [n for n in os.listdir(app.temporaryPath) if n.startswith("CrossKEY-")]
    panel.logic.worker = worker()
    registered(panel, wait, (make_volume("MRI", 0), make_volume("iUS", 1)))
    assert panel.logic.job.state == "done"


def test_a_volume_deleted_in_the_middle(panel, scene, volumes, wait, worker):
    panel.logic.worker = worker("accept", 0.5)
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    scene.RemoveNode(volumes[1])
    wait(lambda: not panel.logic.busy)
    assert panel.logic.job.state == "failed"
    assert "was removed" in panel.ui.statusLabel.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 0


def test_reload_in_the_middle_leaves_no_process(panel, scene, volumes, wait, worker):
    """By the button of Slicer's developer mode, with Slicer's own function behind it."""
    import slicer

    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: panel.logic.job.stage == "keypoints")
    pid, old = panel.logic.worker.pid, sys.modules["CrossKEYSlicer.logic"]
    panel.onReload()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert panel.logic.job.state == "cancelled"
    assert sys.modules["CrossKEYSlicer.logic"] is not old
    fresh = slicer.modules.CrossKEYWidget
    assert fresh is not panel
    wait(lambda: fresh.ui.registerButton.visible)
    assert not panel.ui.registerButton.visible
    assert fresh.ui.mriSelector.currentNode() is volumes[0]
    fresh.logic.worker = worker()
    fresh.ui.registerButton.click()
    wait(lambda: not fresh.logic.busy)
    assert fresh.logic.job.state == "done"
    assert "Cancelled" not in fresh.ui.statusLabel.text
    fresh.cleanup()


QUIT = """
import sys
sys.path[:0] = [{slicer!r}, {module!r}, {root!r}]
import host
app = host.start()
import cases, CrossKEY, qt
from CrossKEYSlicer.work.process import WorkerProcess
_, panel, window = host.load_module(cases.MODULE)
panel.logic.worker = WorkerProcess([sys.executable, str(cases.FAKE), "slow"])
p = panel.logic.parameters
p.mri, p.ius = cases.make_volume("a", 0), cases.make_volume("b", 1)
panel.logic.startRegistration()
def leave():
    print(panel.logic.worker.pid, app.temporaryPath, "torch" in sys.modules, flush=True)
    app.quit()
qt.QTimer.singleShot(500, leave)
app.exec()
"""


def test_ending_the_application_ends_the_worker(app):
    """Also: neither opening the panel nor registering imports torch into Slicer."""
    paths = {"slicer": ROOT / "Testing/Slicer", "module": ROOT / "CrossKEY", "root": ROOT}
    code = QUIT.format(**{name: str(path) for name, path in paths.items()})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    pid, folder, torch = done.stdout.split()[-3:]
    assert torch == "False"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert not os.path.exists(folder)


def test_the_lines_of_the_readme_work_as_written(scene, volumes, worker, monkeypatch, capsys):
    import re

    from CrossKEYSlicer.work import runner

    monkeypatch.setattr(runner, "shared_worker", worker)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (lines,) = [block for block in blocks if "CrossKEYLogic" in block]
    assert len([line for line in lines.splitlines() if line]) == 3
    exec(lines, {"mriNode": volumes[0], "iusNode": volumes[1]})
    assert capsys.readouterr().out == "True 0.91 []\n"
    check_in_world(*volumes)


def test_a_logic_made_in_the_console_is_let_go(worker, volumes):
    """Neither the scene nor the application keeps it; the scene goes on without it."""
    import gc
    import weakref

    from CrossKEYSlicer.logic import CrossKEYLogic

    one = CrossKEYLogic(worker())
    one.register(*volumes)
    parameters, gone = one.parameters, weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    parameters.minutes = 4.0
    volumes[0].GetScene().Clear(0)
