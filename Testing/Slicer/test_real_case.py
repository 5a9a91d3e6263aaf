"""The bundled case with the real worker: the module's self-test, as the application runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases import MODULE, landmarks
from contrasts import bent, in_world, other_contrast
from ticks import Ticks


@pytest.fixture
def tests(scene, app):
    """The self-tests of the application, with this module's among them."""
    import slicer
    from host import load_module

    _, panel, window = load_module(MODULE)
    yield slicer.selfTests
    panel.cleanup()
    window.deleteLater()


def test_self_test_and_answering_meanwhile(tests, scene, app, monkeypatch, capsys):
    """Twice the real registration, through which Slicer answers."""
    from CrossKEYSlicer.logic import CrossKEYLogic

    ticks, register = Ticks(), CrossKEYLogic.register

    def counted(self, *volumes):
        with ticks.counted():
            return register(self, *volumes)

    monkeypatch.setattr(CrossKEYLogic, "register", counted)
    tests["CrossKEY"](msec=0)
    with capsys.disabled():
        print(json.dumps(ticks.figures()))
    assert len(ticks.spans_s) == 2
    assert ticks.answered(), ticks.figures()
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 3


def test_real_preparation_and_answering_meanwhile(tests, scene, app, capsys):
    """A short preparation on a block of the bundled MRI."""
    import slicer
    from CrossKEYSlicer.logic import CrossKEYLogic
    from CrossKEYSlicer.selftest import load_volume
    from CrossKEYSlicer.work.process import WorkerProcess

    mri, ticks = load_volume("MRI"), Ticks()
    slicer.util.updateVolumeFromArray(mri, slicer.util.arrayFromVolume(mri)[60:140, 60:160, 40:140])
    logic = CrossKEYLogic(WorkerProcess())
    try:
        with ticks.counted():
            result = logic.prepare(mri, minutes=0.1)
        assert not logic.job.folder.exists()
    finally:
        logic.close()
    with capsys.disabled():
        print(json.dumps(ticks.figures()))
    assert Path(result["output"]).exists()
    assert ticks.answered(), ticks.figures()


PLACES = np.array([[30.0, 30, 30], [30, 70, 65], [65, 40, 40], [50, 80, 30], [70, 90, 60]])


def test_real_landmarks_in_another_contrast(app, scene, capsys):
    """A block of the bundled MRI, and a bent copy of opposite contrast; the second time quick."""
    import slicer
    from CrossKEYSlicer.logic import CrossKEYLogic
    from CrossKEYSlicer.selftest import load_volume
    from CrossKEYSlicer.work.process import WorkerProcess

    mri = load_volume("MRI")
    slicer.util.updateVolumeFromArray(mri, slicer.util.arrayFromVolume(mri)[30:130, 40:160, 30:130])
    other, ticks = other_contrast(mri), Ticks()
    points = landmarks(scene, "given", in_world(mri, bent(PLACES)))
    logic = CrossKEYLogic(WorkerProcess())
    try:
        with ticks.counted():
            first = logic.propagateLandmarks(mri, other, points)
        second = logic.propagateLandmarks(mri, other, points)
        shown = logic.similarityMap(0)
    finally:
        logic.close()
    errors = np.linalg.norm(np.array(second["points"]) - in_world(other, PLACES), axis=1)
    seconds = [result["seconds"]["total"] for result in (first, second)]
    with capsys.disabled():
        print(json.dumps({**ticks.figures(), "mm": errors.round(1).tolist(), "worker": seconds}))
    assert np.median(errors) < 3
    assert errors.max() < 5
    assert (first["warm"], second["warm"]) == (False, True)
    assert seconds[1] < 0.5 * seconds[0]
    array = slicer.util.arrayFromVolume(shown)
    peak = in_world(shown, np.argwhere(array == array.max())[0, ::-1].astype(float))
    assert np.linalg.norm(peak - in_world(other, PLACES)[0]) < 8
    assert ticks.answered(), ticks.figures()
