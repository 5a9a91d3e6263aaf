"""Where things stand in the panel, and that each control does what it says."""

from __future__ import annotations

import types
import xml.etree.ElementTree as ET

import pytest
from cases import MODULE, ROOT, choose, registered, world

SECTIONS = ("inputs", "register", "review", "prepare", "landmarks", "advanced")
UI = ROOT / "CrossKEY" / "Resources" / "UI" / "CrossKEY.ui"


def test_sections_stand_in_the_order_of_the_work(panel):
    tops = [getattr(panel.ui, f"{name}Section").y for name in SECTIONS]
    assert tops == sorted(set(tops))
    folded = [getattr(panel.ui, f"{name}Section").collapsed for name in SECTIONS]
    assert folded == [False, False, True, True, True, True]


def test_all_that_a_registration_shows_stands_together(panel):
    ui = panel.ui
    parts = (ui.registerButton, ui.progressBar, ui.cancelButton, ui.statusLabel, ui.verdictLabel)
    assert all(ui.registerSection.isAncestorOf(part) for part in parts)


@pytest.mark.parametrize(("mode", "folded"), [("accept", False), ("refuse", True)])
def test_review_opens_with_something_to_review(panel, volumes, wait, worker, mode, folded):
    registered(panel, wait, volumes, mode, worker)
    assert panel.ui.reviewSection.collapsed == folded


def test_the_key_b_shows_before_and_after(panel, volumes, wait):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    registered(panel, wait, volumes)
    after = world(volumes[1])
    panel.window.activateWindow()
    wait(lambda: panel.window.isActiveWindow)
    QTest.keyClick(panel.window, Qt.Key_B)
    assert not panel.ui.afterCheckBox.checked
    assert abs(world(volumes[1]) - after).max() > 1
    QTest.keyClick(panel.window, Qt.Key_B)
    assert panel.ui.afterCheckBox.checked
    assert abs(world(volumes[1]) - after).max() < 1e-9


def test_the_time_of_the_last_run_is_expected(panel, volumes, wait, worker):
    panel.logic.worker = worker("slow")
    choose(panel, *volumes)
    panel.logic.parameters.lastSeconds = 42.0
    panel.ui.registerButton.click()
    wait(lambda: "(about 42 s in all)" in panel.ui.statusLabel.text)
    assert panel.ui.progressBar.maximum == 100
    assert 0 <= panel.ui.progressBar.value <= 95
    panel.ui.cancelButton.click()


def test_device_affine_and_seed_reach_the_worker(panel, volumes, wait):
    panel.ui.deviceComboBox.currentText = "cpu"
    panel.ui.affineCheckBox.click()
    panel.ui.seedSpinBox.value = 7
    registered(panel, wait, volumes)
    request = panel.logic.job.result["request"]
    assert (request["device"], request["transform"], request["seed"]) == ("cpu", "affine", 7)


def test_the_log_holds_what_the_process_said(panel, volumes, wait, worker):
    registered(panel, wait, volumes, "crash", worker)
    assert "out of memory, or so" in panel.ui.logText.toPlainText()


def test_a_page_of_the_fade_is_a_part_of_its_range():
    """CTK's own page is 10, on a slider from 0 to 1."""
    (slider,) = (w for w in ET.parse(UI).iter("widget") if w.get("name") == "fadeSlider")
    steps = {p.get("name"): p.findtext("double") for p in slider.iter("property")}
    assert float(steps["singleStep"]) < float(steps["pageStep"]) <= 0.25


def test_the_category_is_translated_as_slicers_own(app, monkeypatch):
    import CrossKEY

    contexts = []
    monkeypatch.setattr(
        CrossKEY, "translate", lambda *words: contexts.append(words) or "Registrierung"
    )
    parent = types.SimpleNamespace(path=str(MODULE), title="", categories=[], icon=None)
    CrossKEY.CrossKEY(parent)
    assert contexts == [("qSlicerAbstractCoreModule", "Registration")]
    assert parent.categories == ["Registrierung"]
