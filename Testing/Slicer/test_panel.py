"""The panel, clicked as a person would."""

from __future__ import annotations

import re
import sys
import time

import numpy as np
import pytest
from cases import (
    ROOT,
    choose,
    landmarks,
    make_volume,
    pause,
    pose,
    registered,
    slice_views,
    transform,
    world,
)
from ticks import Ticks


def test_nothing_chosen(panel):
    ui = panel.ui
    for name in ("registerButton", "prepareButton", "undoButton", "forgetButton"):
        assert not getattr(ui, name).enabled, name
    assert "Select the MRI" in ui.registerButton.toolTip
    assert not ui.cancelButton.visible
    assert not ui.progressBar.visible
    assert "Nothing registered" in ui.verdictLabel.text
    assert panel.logic.worker.pid == 0


def test_the_same_volume_twice(panel, volumes):
    mri, ius = volumes
    choose(panel, mri, mri)
    assert not panel.ui.registerButton.enabled
    assert "two different" in panel.ui.registerButton.toolTip
    choose(panel, mri, ius)
    assert panel.ui.registerButton.enabled


def test_what_the_console_chooses_is_shown(panel, logic, volumes):
    """And the other way round: two logics of one scene share the choices."""
    other = logic()
    other.parameters.ius, other.parameters.mri = volumes[1], volumes[0]
    assert panel.ui.mriSelector.currentNode() is volumes[0]
    assert panel.ui.registerButton.enabled
    choose(panel, None, volumes[1])
    assert other.parameters.mri is None
    assert not panel.ui.registerButton.enabled


def test_a_volume_without_an_image(panel, scene, volumes):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    choose(panel, volumes[0], empty)
    assert not panel.ui.registerButton.enabled
    assert "'hollow' holds no 3D image" in panel.ui.registerButton.toolTip


def test_register_shows_the_verdict(panel, volumes, wait):
    registered(panel, wait, volumes)
    ui = panel.ui
    assert "ACCEPTED: expected error 1.3 mm" in ui.verdictLabel.text
    assert "#1b7a3a" in ui.verdictLabel.styleSheet
    assert "Registered in" in ui.statusLabel.text
    assert ui.transformSelector.currentNode() is volumes[1].GetParentTransformNode()
    assert ui.matchTable.rowCount == 40
    assert [ui.matchTable.item(0, c).text() for c in range(3)] == ["0.5", "1.00", "yes"]
    assert ui.matchTable.item(39, 2).text() == "no"
    assert ui.undoButton.enabled
    assert not ui.cancelButton.visible


def test_refusal_is_red_and_gives_reasons(panel, volumes, wait, worker):
    registered(panel, wait, volumes, "refuse", worker)
    text = panel.ui.verdictLabel.text
    assert "REFUSED: nothing was applied" in text
    assert "Only 4 of 40 matches agree" in text
    assert "not &lt; 3.0 mm &amp; the matches" in text
    assert "#b3261e" in panel.ui.verdictLabel.styleSheet
    assert volumes[1].GetParentTransformNode() is None
    assert not panel.ui.undoButton.enabled


def test_cancel(panel, volumes, wait, worker):
    from CrossKEYSlicer import words

    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: panel.ui.statusLabel.text == words.STAGES["keypoints"])
    assert panel.ui.cancelButton.visible
    assert panel.ui.progressBar.visible
    assert not panel.ui.registerButton.enabled
    panel.ui.cancelButton.click()
    assert not panel.logic.busy
    assert panel.ui.statusLabel.text == "Cancelled."
    assert panel.ui.registerButton.enabled
    assert not panel.ui.cancelButton.visible
    assert panel.logic.worker.pid == 0
    assert volumes[1].GetParentTransformNode() is None
    panel.logic.worker = worker()
    panel.ui.registerButton.click()
    wait(lambda: not panel.logic.busy)
    assert panel.logic.job.state == "done"


def test_a_crash_is_told_in_red(panel, volumes, wait, worker):
    registered(panel, wait, volumes, "crash", worker)
    assert "ended unexpectedly: out of memory" in panel.ui.statusLabel.text
    assert "#b3261e" in panel.ui.statusLabel.styleSheet
    assert panel.ui.registerButton.enabled


def test_events_are_answered_while_it_works(panel, volumes, wait, worker):
    panel.logic.worker = worker("accept", 1.0)
    choose(panel, *volumes)
    ticks = Ticks()
    with ticks.counted():
        panel.ui.registerButton.click()
        wait(lambda: not panel.logic.busy)
    assert len(ticks.wall_ms) > 30
    assert ticks.answered(late_share=0.05), ticks.figures()  # of only a hundred ticks or so


def test_slice_views_are_set_up_and_faded(panel, scene, volumes, wait):
    mri, ius = volumes
    views = slice_views(scene)
    registered(panel, wait, volumes)
    for _, composite in views:
        assert composite.GetBackgroundVolumeID() == mri.GetID()
        assert composite.GetForegroundVolumeID() == ius.GetID()
        assert composite.GetForegroundOpacity() == 0.5
    panel.ui.fadeSlider.value = 0.8
    assert all(composite.GetForegroundOpacity() == 0.8 for _, composite in views)
    display = ius.GetDisplayNode()
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeYellow"
    assert display.GetApplyThreshold()
    assert display.GetLowerThreshold() > 0
    other = views[0][1]
    other.SetForegroundVolumeID(mri.GetID())
    panel.ui.fadeSlider.value = 0.1
    assert other.GetForegroundOpacity() == 0.8, "another module's view was changed"


def test_a_selected_row_moves_the_slices(panel, scene, volumes, wait):
    (node, _), *_ = slice_views(scene)
    transform(scene, "moved", pose(20, 30, 40, 50), volumes[0])
    registered(panel, wait, volumes)
    import slicer

    places = slicer.util.arrayFromMarkupsControlPoints(
        panel.logic.parameters.mriKeypoints, world=True
    )
    for row in (7, 3):
        panel.ui.matchTable.selectRow(row)
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 3], places[row], atol=1e-4)


def test_before_after_and_undo_by_click(panel, volumes, wait):
    _mri, ius = volumes
    registered(panel, wait, volumes)
    after = world(ius)
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), np.eye(4))
    panel.ui.afterCheckBox.click()
    np.testing.assert_allclose(world(ius), after)
    panel.ui.undoButton.click()
    assert ius.GetParentTransformNode() is None
    assert not panel.ui.undoButton.enabled
    assert "Nothing registered" in panel.ui.verdictLabel.text


def test_registering_from_before_shows_after(panel, volumes, wait):
    registered(panel, wait, volumes)
    panel.ui.afterCheckBox.click()
    registered(panel, wait, volumes)
    assert panel.ui.afterCheckBox.checked
    assert not np.allclose(world(volumes[1]), np.eye(4))


def test_measured_error(panel, scene, volumes, wait):
    panel.ui.measureButton.click()
    assert "Select the landmarks" in panel.ui.statusLabel.text
    registered(panel, wait, volumes)
    points = np.eye(3) * 20
    panel.ui.mriLandmarksSelector.setCurrentNode(landmarks(scene, "a", points))
    panel.ui.iusLandmarksSelector.setCurrentNode(landmarks(scene, "b", points))
    panel.ui.measureButton.click()
    assert panel.ui.measureLabel.text.startswith("Landmarks (3): 0.0 mm before, 1")


def test_own_output_transform(panel, scene, volumes, wait):
    own = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "my own")
    panel.ui.transformSelector.setCurrentNode(own)
    registered(panel, wait, volumes)
    assert volumes[1].GetParentTransformNode() is own


def test_auto_register_when_the_image_changes(panel, volumes, wait):
    registered(panel, wait, volumes)
    first = panel.logic.job
    volumes[1].GetImageData().Modified()
    pause(0.5)
    assert panel.logic.job is first, "the option is off"
    panel.ui.autoRegisterCheckBox.click()
    pause(0.5)
    assert panel.logic.job is first, "nothing has changed yet"
    volumes[1].GetImageData().Modified()
    wait(lambda: panel.logic.job is not first and not panel.logic.busy)
    assert panel.logic.job.state == "done"


def test_auto_register_when_the_next_one_arrives(panel, volumes, wait):
    registered(panel, wait, volumes)
    first = panel.logic.job
    panel.ui.autoRegisterCheckBox.click()
    make_volume("MRI_2", 5)
    assert panel.ui.iusSelector.currentNode() is volumes[1]
    following = make_volume("iUS_1", 6)
    assert panel.ui.iusSelector.currentNode() is following
    wait(lambda: panel.logic.job is not first and not panel.logic.busy)
    assert panel.logic.job.state == "done"
    assert following.GetParentTransformNode() is panel.logic.parameters.transform


def test_a_stream_is_registered_still(panel, volumes, wait):
    """Ten times a second it changes: it never settles, and never two run at once."""
    registered(panel, wait, volumes)
    panel.ui.autoRegisterCheckBox.click()
    jobs, end = [], time.monotonic() + 6
    while time.monotonic() < end and len(jobs) < 2:
        volumes[1].GetImageData().Modified()
        pause(0.1)
        if panel.logic.job not in jobs and panel.logic.job.state == "done":
            jobs.append(panel.logic.job)
    assert len(jobs) == 2


def test_auto_register_waits_for_the_running_one(panel, volumes, wait, worker):
    panel.logic.worker = worker("accept", 0.8)
    choose(panel, *volumes)
    panel.ui.autoRegisterCheckBox.click()
    panel.ui.registerButton.click()
    first = panel.logic.job
    volumes[1].GetImageData().Modified()
    wait(lambda: not first.running)
    wait(lambda: panel.logic.job is not first and not panel.logic.busy)
    assert first.state == panel.logic.job.state == "done"


def test_views_are_set_up_once_and_on_request(panel, scene, volumes, wait):
    views = slice_views(scene)
    registered(panel, wait, volumes)
    composite = views[0][1]
    composite.SetForegroundVolumeID(None)
    registered(panel, wait, volumes)
    assert composite.GetForegroundVolumeID() is None
    panel.ui.viewsButton.click()
    assert composite.GetForegroundVolumeID() == volumes[1].GetID()


def test_selectors_are_locked_while_it_works(panel, volumes, wait, worker):
    from CrossKEYSlicer import words

    selectors = [panel.ui.mriSelector, panel.ui.iusSelector, panel.ui.transformSelector]
    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: panel.ui.statusLabel.text == words.STAGES["keypoints"])
    assert not any(selector.enabled for selector in selectors)
    panel.ui.cancelButton.click()
    assert all(selector.enabled for selector in selectors)


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2 of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_on_light_and_dark_windows(app):
    """At least 4.5:1, the WCAG minimum for text, on white and on Slicer's dark #323232."""
    from CrossKEYSlicer import words

    for colour in (words.RED, words.AMBER):
        for window, dark in (("#ffffff", False), ("#323232", True)):
            text = words.coloured(colour, dark).split(";")[0].removeprefix("color: ")
            assert contrast(text, window) >= 4.5, (text, window)
    for background in (words.GREEN, words.RED, words.AMBER, words.GREY):
        assert contrast("#ffffff", background) >= 4.5, background
    assert contrast("#000000", "#ffffff") == 21


def test_emphasised_text_follows_the_window(panel):
    import qt
    from CrossKEYSlicer import words

    for window, colour in (("#ffffff", words.RED), ("#323232", words.ON_DARK[words.RED])):
        palette = panel.ui.statusLabel.palette
        palette.setColor(qt.QPalette.Window, qt.QColor(window))
        panel.ui.statusLabel.setPalette(palette)
        panel.tellProblem("It cannot be done.")
        assert colour in panel.ui.statusLabel.styleSheet


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("print('Card A'); print('Card B')", "cuda: Card A; cuda:1: Card B"),
        ("raise SystemExit(9)", "No NVIDIA graphics card was found"),
    ],
)
def test_cards_are_named_when_advanced_is_unfolded(panel, wait, printed, shown):
    panel.cards._command = (sys.executable, "-c", printed)
    assert panel.ui.cardsLabel.text == ""
    panel.ui.advancedSection.collapsed = False
    wait(lambda: shown in panel.ui.cardsLabel.text)


def test_a_computer_without_the_tool_for_cards(panel, wait):
    panel.cards._command = ("/no/such/program",)
    panel.ui.advancedSection.collapsed = False
    wait(lambda: "No NVIDIA" in panel.ui.cardsLabel.text)


def test_stages_are_told_in_plain_words(panel, volumes, wait, worker):
    """Every stage of a registration that the library names has words of its own."""
    source = (ROOT / "CrossKEYLib/registration/pipeline.py").read_text(encoding="utf-8")
    named = set(re.findall(r'self\.stage\("([^"]+)"\)', source))
    from CrossKEYSlicer import words

    assert len(named) >= 7
    assert named <= set(words.STAGES)
    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: "Finding distinct points" in panel.ui.statusLabel.text)
