"""The host refuses what Slicer would refuse; otherwise the other tests would prove nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ticks import Ticks


@pytest.mark.parametrize(
    ("widget", "attribute"),
    [
        ("registerButton", "tooltip"),
        ("mriSelector", "currentnode"),
        ("fadeSlider", "val"),
        ("inputsSection", "title"),
        ("syntheticFolderEdit", "path"),
    ],
)
def test_unknown_attributes_are_refused(panel, widget, attribute):
    with pytest.raises(AttributeError):
        setattr(getattr(panel.ui, widget), attribute, "x")
    with pytest.raises(AttributeError):
        getattr(getattr(panel.ui, widget), attribute)


def test_properties_are_attributes_and_no_methods(panel):
    assert panel.ui.registerButton.text == "Register"
    with pytest.raises(TypeError):
        panel.ui.registerButton.text()


def test_parameters_refuse_wrong_values(panel, volumes):
    parameters = panel.logic.parameters
    for name, value in (("minutes", "ten"), ("mri", panel), ("after", 1)):
        with pytest.raises((TypeError, ValueError)):
            setattr(parameters, name, value)
    with pytest.raises(ValueError, match=r"0\.0"):
        parameters.minutes = 0.0
    with pytest.raises(ValueError, match="abacus"):
        parameters.device = "abacus"


def test_views_leave_nothing_behind(app, scene):
    """Their hidden nodes are singletons, which closing a scene keeps as long as a logic does."""
    from host.views import SliceView

    SliceView(app)
    kind = "vtkMRMLLinearTransformNode"
    assert scene.GetNumberOfNodesByClass(kind) == 1
    app.closeViews()
    scene.Clear(0)
    assert scene.GetNumberOfNodesByClass(kind) == 0


def test_selector_follows_the_scene(panel, scene, volumes):
    ui, (mri, ius) = panel.ui, volumes
    ui.iusSelector.setCurrentNode(ius)
    scene.RemoveNode(ius)
    assert ui.iusSelector.currentNode() is None
    ui.iusSelector.setCurrentNode(mri)
    assert ui.iusSelector.currentNode() is mri


@pytest.mark.parametrize("name", ["ScriptedLoadableModule", "parameterNodeWrapper", "i18n"])
def test_slicers_own_files_are_in_use(app, name):
    folder = os.environ.get("CROSSKEY_SLICER_PYTHON")
    if not folder:
        pytest.skip("CROSSKEY_SLICER_PYTHON names no folder of a Slicer installation")
    file = sys.modules[f"slicer.{name}"].__file__
    assert Path(file or "").is_relative_to(Path(folder) / "slicer")


def test_a_kept_event_loop_is_noticed(app):
    """By work that takes half a second once, and by a tenth of a second again and again."""
    for times, work_s in ((1, 0.5), (8, 0.12)):
        ticks = Ticks()
        with ticks.counted():
            for _ in range(times):
                end = time.thread_time() + work_s
                while time.thread_time() < end:
                    pass
                app.processEvents()
                time.sleep(0.01)
                app.processEvents()
        assert not ticks.answered(), ticks.figures()
