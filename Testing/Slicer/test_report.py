"""What "Save report..." leaves, comparing, and where a registration starts from."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
from cases import (
    ROOT,
    TRUTH,
    choose,
    make_volume,
    pause,
    pose,
    registered,
    slice_views,
    transform,
)


def test_a_report_holds_transform_figures_and_a_page(panel, volumes, wait, tmp_path):
    import SimpleITK as sitk

    registered(panel, wait, volumes)
    panel.pickFolder = lambda: str(tmp_path / "report")
    panel.ui.reportButton.click()
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["report.html", "report.json", "transform.h5", "transform.tfm"]
    assert "4 files" in panel.ui.statusLabel.text
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["accepted"]
    assert report["judged"]["ius"] == "iUS"
    model = (ROOT / "Resources/Models/crosskey-general.pt").read_bytes()
    assert report["judged"]["model_sha256"] == hashlib.sha256(model).hexdigest()
    page = (tmp_path / "report/report.html").read_text()
    assert report["judged"]["model_sha256"][:16] in page
    for words in ("ACCEPTED: expected error 1.3 mm", "iUS", report["judged"]["mri_image"][:16]):
        assert words in page
    flip = np.diag([-1.0, -1, 1, 1])
    for name in names[2:]:
        read = sitk.ReadTransform(str(tmp_path / "report" / name))
        points = np.array([[0.0, 0, 0], [30, -10, 5]])
        there = [read.TransformPoint(p.tolist()) for p in points]  # LPS, from MRI to ultrasound
        back = np.linalg.inv(flip @ TRUTH @ flip)
        wanted = points @ back[:3, :3].T + back[:3, 3]
        np.testing.assert_allclose(there, wanted, atol=1e-4)


def test_a_refusal_is_reported_without_a_transform(panel, volumes, wait, worker, tmp_path):
    registered(panel, wait, volumes, "refuse", worker)
    files = panel.logic.saveReport(tmp_path)
    assert sorted(path.name for path in files) == ["report.html", "report.json"]
    page = (tmp_path / "report.html").read_text()
    assert "REFUSED" in page
    assert "not &lt; 3.0 mm &amp; the matches" in page


def test_nothing_to_report(panel, tmp_path):
    panel.pickFolder = lambda: str(tmp_path)
    panel.ui.reportButton.click()
    assert "register first" in panel.ui.statusLabel.text
    assert list(tmp_path.iterdir()) == []
    panel.pickFolder = lambda: ""
    panel.ui.reportButton.click()


def test_a_folder_that_cannot_be_written_to(panel, volumes, wait, tmp_path):
    from CrossKEYSlicer.problem import Problem

    registered(panel, wait, volumes)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Problem, match="cannot be written to"):
        panel.logic.saveReport(file)


def test_pictures_go_into_the_page(app):
    from CrossKEYSlicer.scene import report

    told = {
        "accepted": True,
        "outdated": "",
        "predicted_tre_mm": 1.0,
        "n_inliers": 3,
        "n_matches": 4,
        "confidence": 0.9,
        "model": "<m>",
        "device": "cpu",
        "version": "1",
        "matrix_ras": np.eye(4).tolist(),
        "judged": {"mri": "a", "ius": "b", "mri_image": "c", "ius_image": "d", "time": "now"},
    }
    page = report.page(told, {"Red": b"\x89PNG"})
    assert "data:image/png;base64,iVBORw==" in page
    assert "&lt;m&gt;" in page


def test_blinking_and_its_end(panel, scene, volumes, wait):
    views = slice_views(scene)
    registered(panel, wait, volumes)
    panel.ui.blinkCheckBox.click()
    seen = set()
    for _ in range(8):
        pause(0.15)
        seen.add(views[0][1].GetForegroundOpacity())
    assert seen == {0.0, 1.0}
    panel.ui.blinkCheckBox.click()
    pause(0.5)
    assert views[0][1].GetForegroundOpacity() == panel.logic.parameters.fade


def test_the_rate_of_blinking(panel, scene, volumes, wait):
    views = slice_views(scene)
    registered(panel, wait, volumes)
    composite, opacities = views[0][1], []
    composite.AddObserver(
        "ModifiedEvent", lambda *_: opacities.append(composite.GetForegroundOpacity())
    )
    turns = {}
    for rate in (5.0, 0.5):
        panel.ui.blinkRateSpinBox.value = rate
        opacities.clear()
        panel.ui.blinkCheckBox.click()
        pause(1.3)
        panel.ui.blinkCheckBox.click()
        turns[rate] = sum(a != b for a, b in itertools.pairwise(opacities[:-1]))
    assert turns[0.5] <= 1 < 4 <= turns[5.0] <= 13


def test_blinking_ends_with_the_panel(panel, app, scene, volumes, wait):
    slice_views(scene)
    registered(panel, wait, volumes)
    panel.ui.blinkCheckBox.click()
    app.moduleManager().unload("CrossKEY")
    pause(0.5)  # a blink now would raise, which fails the test
    assert not panel.ui.blinkCheckBox.checked


def test_keypoints_matches_and_lines_are_shown_or_hidden(panel, volumes, wait):
    registered(panel, wait, volumes)
    p, ui = panel.logic.parameters, panel.ui
    boxes = {
        ui.keypointsCheckBox: (p.mriKeypoints, p.iusKeypoints),
        ui.inliersCheckBox: (p.inliers,),
        ui.linesCheckBox: (p.matchLines,),
    }
    for box, nodes in boxes.items():
        assert all(node.GetDisplayNode().GetVisibility() for node in nodes)
        box.click()
        assert not any(node.GetDisplayNode().GetVisibility() for node in nodes)
    registered(panel, wait, volumes)
    assert not p.inliers.GetDisplayNode().GetVisibility(), "a hidden thing came back by itself"


def test_the_present_alignment_is_offered_where_the_images_overlap(panel, scene, volumes):
    mri, ius = volumes
    choose(panel, mri, ius)
    assert panel.ui.fromPresentCheckBox.checked
    assert "at most 4 cm" in panel.ui.presentLabel.text
    far = make_volume("far away", 3)
    transform(scene, "tracker", pose(0, 500, 0, 0), far)
    choose(panel, mri, far)
    assert not panel.ui.fromPresentCheckBox.checked
    assert "all positions and orientations" in panel.ui.presentLabel.text


def test_the_start_stays_as_a_person_has_chosen_it(panel, volumes, wait):
    choose(panel, *volumes)
    panel.ui.fromPresentCheckBox.click()
    registered(panel, wait, volumes)
    assert not panel.ui.fromPresentCheckBox.checked
