"""Volumes, transforms, landmarks and clicks that several tests share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import fake_worker
import numpy as np

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "CrossKEY" / "CrossKEY.py"
FAKE = Path(__file__).with_name("fake_worker.py")
TRUTH = np.array(fake_worker.MATRIX)
CORNERS = np.array([[0.0, 0, 0, 1], [40, 0, 0, 1], [0, 40, 0, 1], [0, 0, 40, 1]])


def make_volume(name: str, seed: int) -> Any:
    import slicer

    z, y, x = np.indices((24, 30, 28))
    ball = ((z - 12) ** 2 + (y - 15) ** 2 + (x - 14) ** 2 < 80) * 100.0
    noise = np.random.default_rng(seed).normal(0, 3, ball.shape)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, (np.maximum(ball + noise, 0)).astype(np.float32))
    matrix = pose(20 + 30 * seed, -30, -20, -25)
    matrix[:3, :3] *= 2.0
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.CreateDefaultDisplayNodes()
    return node


def pose(turn_deg: float, *shift: float) -> np.ndarray:
    turn = np.radians(turn_deg)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 3] = shift
    return matrix


def transform(scene, name, matrix, *below):
    from CrossKEYSlicer.scene import chain

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    chain.set_matrix(node, matrix)
    for child in below:
        child.SetAndObserveTransformNodeID(node.GetID())
    return node


def world(node) -> np.ndarray:
    from CrossKEYSlicer.scene import chain

    return chain.between(node.GetParentTransformNode(), None)


def names_above(node) -> list[str]:
    from CrossKEYSlicer.scene import chain

    return [parent.GetName() for parent in chain.chain_of(node)]


def check_in_world(mri, ius):
    """A point of the ultrasound lies where the MRI has the same place."""
    there = CORNERS @ TRUTH.T @ world(mri).T
    np.testing.assert_allclose(CORNERS @ world(ius).T, there, atol=1e-5)


def landmarks(scene, name, points, labels=None):
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    slicer.util.updateMarkupsControlPointsFromArray(node, np.asarray(points))
    for index, label in enumerate(labels or []):
        node.SetNthControlPointLabel(index, label)
    return node


def choose(panel, mri, ius):
    panel.ui.mriSelector.setCurrentNode(mri)
    panel.ui.iusSelector.setCurrentNode(ius)


def registered(panel, wait, volumes, mode=None, make=None):
    if mode:
        panel.logic.worker.stop()
        panel.logic.worker = make(mode)
    choose(panel, *volumes)
    panel.ui.registerButton.click()
    wait(lambda: not panel.logic.busy)


def prepare(panel, wait):
    panel.ui.prepareButton.click()
    wait(lambda: not panel.logic.busy)


def save(scene, folder):
    """As Slicer's Save dialogue does it: each node into a file, then the scene."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLStorableNode")
        if node.GetHideFromEditors() or not node.GetSaveWithScene():
            continue
        node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        if storage is None:
            continue
        extension = storage.GetDefaultWriteFileExtension()
        storage.SetFileName(str(folder / f"node{index}.{extension}"))
        assert storage.WriteData(node), node.GetName()
    assert scene.Commit() == 1


def slice_views(scene):
    import slicer

    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    views = []
    for name in ("Red", "Green"):
        node = scene.AddNode(slicer.vtkMRMLSliceNode())
        node.SetLayoutName(name)
        composite = scene.AddNode(slicer.vtkMRMLSliceCompositeNode())
        composite.SetLayoutName(name)
        views.append((node, composite))
    return views


def pause(seconds):
    """Let the application go on for a while."""
    import slicer

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
