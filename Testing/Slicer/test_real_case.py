"""The bundled case with the real worker: the module's self-test, as the application runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases import MODULE
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
    assert ticks.own_ms.max() < 100
    assert (ticks.wall_ms > 100).mean() < 0.02  # a busy computer may make some
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 3


def test_real_preparation_and_answering_meanwhile(tests, scene, app, capsys):
    """A short preparation on a block of the bundled MRI."""
    import slicer
    from CrossKEYSlicer.logic import CrossKEYLogic
    from CrossKEYSlicer.process import WorkerProcess
    from CrossKEYSlicer.selftest import load_volume

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
    assert ticks.own_ms.max() < 100
    assert (ticks.wall_ms > 100).mean() < 0.02
