"""The bundled case with the real worker: the module's self-test, as the application runs it."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from cases import MODULE


@pytest.fixture
def tests(scene, app):
    """The self-tests of the application, with this module's among them."""
    import slicer
    from host import load_module

    _, panel, window = load_module(MODULE)
    yield slicer.selfTests
    panel.cleanup()
    window.deleteLater()


def test_self_test_and_answering_meanwhile(tests, scene, app, tmp_path, capsys):
    """Twice the real registration; a timer of 20 ms shows whether Slicer would have answered."""
    import qt

    ticks = []
    timer = qt.QTimer()
    timer.setInterval(20)
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start()
    tests["CrossKEY"](msec=0)
    timer.stop()
    gaps = np.diff(ticks) * 1000
    late = float((gaps > 100).mean())
    figures = {"ticks": len(ticks), "median_ms": float(np.median(gaps)), "late": late}
    with capsys.disabled():
        print(json.dumps({**figures, "longest_ms": float(gaps.max())}))
    assert late < 0.005
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 3
