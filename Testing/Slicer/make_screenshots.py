"""Makes Resources/Screenshots with the test host: the panel in each state, light and dark, and the
views before, after and side by side. Not pictures of the Slicer application.

    PYTHONPATH=.:Testing/Slicer python Testing/Slicer/make_screenshots.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
from cases import MODULE, ROOT, choose
from contrasts import bent, in_world, other_contrast
from host import load_module, start
from host.views import SliceView

OUTPUT = ROOT / "Resources" / "Screenshots"
WIDTH = 430
NAMES = ["F-1", "F-2", "F-3", "F-4"]
PLACES = np.array([[97.0, 37, 86], [57, 70, 91], [77, 163, 71], [56, 53, 14]])  # voxels
STRONGEST, HALVINGS = 2.0, 8  # of the speckle in the doubtful case, and the search for it
CUT_VOXELS = 30  # from below, so that the other image shows too little of the last place


# The windows of Slicer's dark style, and what Qt derives the rest from.
DARK = {"Window": "#323232", "Base": "#2a2a2a", "Button": "#424242", "Text": "#ffffff"}
DARK |= dict.fromkeys(("WindowText", "ButtonText"), "#ffffff")


def wait(app: Any, condition: Callable[[], object]) -> None:
    while not condition():
        app.processEvents()
        time.sleep(0.01)


def palette(dark: bool) -> Any:
    import qt

    if not dark:
        return qt.QApplication.style().standardPalette()
    made = qt.QPalette()
    for role, colour in DARK.items():
        made.setColor(getattr(qt.QPalette, role), qt.QColor(colour))
        if role.endswith("Text"):
            made.setColor(qt.QPalette.Disabled, getattr(qt.QPalette, role), qt.QColor("#8c8c8c"))
    return made


def grab(app: Any, panel: Any, window: Any, name: str) -> None:
    """The panel as high as it wants to be, in both styles."""
    from CrossKEYSlicer.panel import panel_state

    for dark in (True, False):
        app.setPalette(palette(dark))
        app.processEvents()
        panel_state.show_inputs(panel.ui, panel.logic)
        panel_state.show_outcome(panel.ui, panel.logic)
        if panel.logic.job is not None:
            panel_state.show_job(panel.ui, panel.logic)
        for _ in range(2):  # a text that is wrapped knows its height after its width
            app.processEvents()
            window.resize(WIDTH, window.sizeHint().height())
        app.processEvents()
        window.grab().save(str(OUTPUT / f"{name}{'-dark' if dark else ''}.png"))


def save(pictures: list[np.ndarray], name: str) -> None:
    import qt

    pixels = np.ascontiguousarray(np.hstack(pictures))
    height, width, _ = pixels.shape
    image = qt.QImage(pixels.data, width, height, 3 * width, qt.QImage.Format_RGB888)
    image.save(str(OUTPUT / f"{name}.png"))


def fold(panel: Any, opened: str) -> None:
    """All sections but one."""
    for name in ("inputs", "register", "review", "prepare", "landmarks", "advanced"):
        getattr(panel.ui, f"{name}Section").collapsed = name != opened


def landmarks(app: Any, panel: Any, window: Any) -> None:
    """The panel, and two images beside each other: points as placed, and as found with a map."""
    import slicer
    from CrossKEYSlicer.selftest import load_volume
    from CrossKEYSlicer.work.process import WorkerProcess

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
    grab(app, panel, window, "landmarks")
    save([view.picture() for view in views], "found")
    panel.logic.worker.stop()


def upside_down(ius: Any) -> Any:
    """An ultrasound that fits nowhere: turned over from top to bottom, as by a wrong header."""
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass(ius.GetClassName(), "iUS upside down")
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(ius)[::-1].copy())
    matrix = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    return node


def speckled(ius: Any, strength: float) -> Any:
    """An ultrasound with stronger speckle: each voxel times a random factor of this spread."""
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass(ius.GetClassName(), "iUS, strong speckle")
    array = slicer.util.arrayFromVolume(ius)
    factor = np.exp(strength * np.random.default_rng(0).standard_normal(array.shape))
    made = (array * factor).round().clip(0, array.max()).astype(array.dtype)
    slicer.util.updateVolumeFromArray(node, made)
    matrix = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    return node


def doubtful(app: Any, panel: Any, window: Any, mri: Any, ius: Any) -> None:
    """Between speckle that is accepted and speckle that is refused lies some that leaves doubt."""
    accepted, refused = 0.0, STRONGEST
    for _ in range(HALVINGS):
        strength = (accepted + refused) / 2
        choose(panel, mri, speckled(ius, strength))
        register(app, panel)
        outcome = panel.logic.outcome()
        if outcome.get("verdict") == "doubtful":
            print(f"doubtful with speckle of {strength:g}")
            grab(app, panel, window, "doubtful")
            panel.ui.discardButton.click()
            return
        if outcome.get("accepted"):
            accepted = strength
            panel.logic.undo()
        else:
            refused = strength
    raise SystemExit("no strength of speckle leaves doubt: choose another doubtful case")


def register(app: Any, panel: Any) -> None:
    panel.ui.registerButton.click()
    wait(app, lambda: not panel.logic.busy)


def accepted(app: Any, panel: Any, window: Any, views: list[SliceView]) -> None:
    """Busy, accepted, before and after, side by side, and what a person has moved since."""
    from CrossKEYSlicer.scene import chain
    from CrossKEYSlicer.work.process import WorkerProcess

    panel.logic.worker = WorkerProcess()
    panel.ui.registerButton.click()
    wait(app, lambda: panel.logic.job.stage == "MRI descriptors" or not panel.logic.busy)
    grab(app, panel, window, "busy")
    wait(app, lambda: not panel.logic.busy)
    grab(app, panel, window, "done")
    for view, orientation in zip(views, ("Axial", "Coronal", "Sagittal"), strict=True):
        view.node.SetOrientation(orientation)
        view.fit()
    panel.ui.matchTable.selectRow(1)
    for name, after in (("after", True), ("before", False)):
        panel.logic.showAfter(after)
        save([view.picture() for view in views], name)
    panel.logic.showAfter(True)
    panel.ui.besideCheckBox.click()
    panel.ui.matchTable.selectRow(0)
    panel.ui.matchTable.selectRow(1)
    save([views[0].picture(), views[2].picture()], "beside")
    panel.ui.besideCheckBox.click()
    node = panel.logic.parameters.registeredTransform
    matrix = chain.matrix_of(node)
    chain.set_matrix(node, cases.pose(4, 2, 0, 0) @ matrix)
    cases.pause(0.3)
    grab(app, panel, window, "outdated")
    chain.set_matrix(node, matrix)
    panel.logic.undo()


def prepared(app: Any, panel: Any, window: Any) -> None:
    from CrossKEYSlicer.work.process import WorkerProcess

    panel.logic.worker.stop()
    panel.logic.worker = WorkerProcess()
    with tempfile.TemporaryDirectory() as folder:
        app.mrmlScene().SetURL(f"{folder}/scene.mrml")  # the model goes beside it
        fold(panel, "prepare")
        panel.ui.minutesSpinBox.value = 1.0
        panel.ui.prepareButton.click()
        wait(app, lambda: "within 5 mm" in panel.logic.job.stage or not panel.logic.busy)
        grab(app, panel, window, "prepare")
        panel.ui.cancelButton.click()


def main() -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    app = start()
    app.setStyle("Fusion")
    _, panel, window = load_module(MODULE)
    from CrossKEYSlicer.selftest import load_volume

    views = [SliceView(app, name) for name in ("Red", "Green", "Yellow")]
    window.show()
    grab(app, panel, window, "empty")
    mri, ius = load_volume("MRI"), load_volume("iUS")
    choose(panel, mri, ius)
    grab(app, panel, window, "ready")
    accepted(app, panel, window, views)
    doubtful(app, panel, window, mri, ius)
    choose(panel, mri, upside_down(ius))
    register(app, panel)
    grab(app, panel, window, "refused")
    choose(panel, mri, ius)
    fold(panel, "advanced")
    grab(app, panel, window, "advanced")
    prepared(app, panel, window)
    landmarks(app, panel, window)
    panel.cleanup()


if __name__ == "__main__":
    main()
