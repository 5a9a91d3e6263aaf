"""Makes Resources/Screenshots with the test host: the panel in each state, the views before and
after. Not pictures of the Slicer application.

    PYTHONPATH=.:Testing/Slicer python Testing/Slicer/make_screenshots.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
from cases import FAKE, MODULE, ROOT, choose
from contrasts import bent, in_world, other_contrast
from host import load_module, start
from host.views import SliceView

OUTPUT = ROOT / "Resources" / "Screenshots"
WIDTH = 430
NAMES = ["F-1", "F-2", "F-3", "F-4"]
PLACES = np.array([[97.0, 37, 86], [57, 70, 91], [77, 163, 71], [56, 53, 14]])  # voxels
CUT_VOXELS = 30  # from below, so that the other image shows too little of the last place


def wait(app: Any, condition: Callable[[], object]) -> None:
    while not condition():
        app.processEvents()
        time.sleep(0.01)


def grab(app: Any, window: Any, name: str) -> None:
    """The panel as high as it wants to be."""
    app.processEvents()
    window.resize(WIDTH, window.sizeHint().height())
    app.processEvents()
    window.grab().save(str(OUTPUT / f"{name}.png"))


def save(pictures: list[np.ndarray], name: str) -> None:
    import qt

    pixels = np.ascontiguousarray(np.hstack(pictures))
    height, width, _ = pixels.shape
    image = qt.QImage(pixels.data, width, height, 3 * width, qt.QImage.Format_RGB888)
    image.save(str(OUTPUT / f"{name}.png"))


def fold(panel: Any, opened: str) -> None:
    """All sections but one."""
    for name in ("inputs", "prepare", "register", "landmarks", "review"):
        getattr(panel.ui, f"{name}Section").collapsed = name != opened


def landmarks(app: Any, panel: Any, window: Any) -> None:
    """The panel, and two images beside each other: points as placed, and as found with a map."""
    import slicer
    from CrossKEYSlicer.process import WorkerProcess
    from CrossKEYSlicer.selftest import load_volume

    app.mrmlScene().Clear(0)
    mri = load_volume("MRI")
    other = other_contrast(mri)
    slicer.util.arrayFromVolume(other)[:CUT_VOXELS] = 0
    slicer.util.arrayFromVolumeModified(other)
    points = cases.landmarks(app.mrmlScene(), "Landmarks", in_world(mri, bent(PLACES)), NAMES)
    points.CreateDefaultDisplayNodes()
    views = [SliceView(app, name) for name in ("Left", "Right")]
    for view, image in zip(views, (mri, other), strict=True):
        view.logic.GetSliceCompositeNode().SetBackgroundVolumeID(image.GetID())
    fold(panel, "landmarks")
    panel.logic.worker = WorkerProcess()
    panel.ui.landmarksFromSelector.setCurrentNode(mri)
    panel.ui.landmarksToSelector.setCurrentNode(other)
    panel.ui.landmarkPointsSelector.setCurrentNode(points)
    panel.ui.similarityCheckBox.click()
    panel.ui.findButton.click()
    wait(app, lambda: not panel.logic.busy)
    panel.ui.landmarkTable.selectRow(0)
    wait(app, lambda: not panel.logic.busy)
    for view in views:
        view.fit()
    panel.ui.landmarkTable.selectRow(0)
    grab(app, window, "landmarks")
    save([view.picture() for view in views], "found")
    panel.logic.worker.stop()


def main() -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    app = start()
    _, panel, window = load_module(MODULE)
    from CrossKEYSlicer.process import WorkerProcess
    from CrossKEYSlicer.selftest import load_volume

    views = [SliceView(app, name) for name in ("Red", "Green", "Yellow")]
    window.show()
    grab(app, window, "empty")
    choose(panel, load_volume("MRI"), load_volume("iUS"))
    grab(app, window, "ready")
    panel.logic.worker = WorkerProcess()
    panel.ui.registerButton.click()
    wait(app, lambda: panel.logic.job.stage == "MRI descriptors" or not panel.logic.busy)
    grab(app, window, "busy")
    wait(app, lambda: not panel.logic.busy)
    grab(app, window, "done")
    panel.ui.matchTable.selectRow(0)
    for view, orientation in zip(views, ("Axial", "Coronal", "Sagittal"), strict=True):
        view.node.SetOrientation(orientation)
        view.fit()
    panel.ui.matchTable.selectRow(1)
    for name, after in (("after", True), ("before", False)):
        panel.logic.showAfter(after)
        save([view.picture() for view in views], name)
    panel.logic.worker.stop()
    panel.logic.worker = WorkerProcess([sys.executable, str(FAKE), "refuse"])
    panel.ui.registerButton.click()
    wait(app, lambda: not panel.logic.busy)
    grab(app, window, "refused")
    panel.logic.worker.stop()
    panel.logic.worker = WorkerProcess()
    with tempfile.TemporaryDirectory() as folder:
        app.mrmlScene().SetURL(f"{folder}/scene.mrml")  # the model goes beside it
        fold(panel, "prepare")
        panel.ui.inputsSection.collapsed = False
        panel.ui.minutesSpinBox.value = 1.0
        panel.ui.prepareButton.click()
        wait(app, lambda: "within 5 mm" in panel.logic.job.stage or not panel.logic.busy)
        grab(app, window, "prepare")
        panel.ui.cancelButton.click()
    landmarks(app, panel, window)
    panel.cleanup()


if __name__ == "__main__":
    main()
