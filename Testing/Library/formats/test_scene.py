"""The scene opens in real MRML with everything in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.registered import TRUTH, outcome, pair

from CrossKEYLib.formats import scene
from CrossKEYLib.geometry import transform


def loaded(mrml, folder):
    """The scene as Slicer reads it; its markups module registers what a bare scene lacks."""
    node_scene = mrml.vtkMRMLScene()
    node_scene.AddNode(mrml.vtkMRMLSelectionNode())
    logic = mrml.vtkSlicerMarkupsLogic()
    logic.SetMRMLScene(node_scene)
    node_scene.SetURL(str(folder / scene.SCENE))
    assert node_scene.Connect() == 1
    return node_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("szène ü")
    fixed, moving = outcome().matched_points()
    written = scene.write_scene(folder, *pair(), TRUTH, fixed[:60], moving[:60])
    assert sorted(written) == sorted(folder.iterdir())
    return folder


def test_ultrasound_lies_under_the_transform(mrml, folder):
    opened = loaded(mrml, folder)
    mri, ius = (opened.GetFirstNodeByName(name) for name in ("MRI", "iUS"))
    parent = ius.GetParentTransformNode()
    assert parent.GetName() == "iUS to MRI"
    assert mri.GetParentTransformNode() is None
    matrix = mrml.util.arrayFromTransformMatrix(parent)
    np.testing.assert_allclose(matrix, TRUTH, rtol=0, atol=1e-6)


def test_volumes_are_there_and_where_they_were(mrml, folder):
    opened = loaded(mrml, folder)
    for name, volume in zip(("MRI", "iUS"), pair(), strict=True):
        node = opened.GetFirstNodeByName(name)
        np.testing.assert_allclose(
            mrml.util.arrayFromVolume(node), volume.array.numpy(), rtol=0, atol=1e-6
        )
        directions = np.zeros((3, 3))
        node.GetIJKToRASDirections(directions)
        got = transform.from_parts(directions * node.GetSpacing(), node.GetOrigin())
        np.testing.assert_allclose(got, volume.ijk_to_ras, rtol=0, atol=1e-6)
        assert node.GetDisplayNode().GetWindow() > 0
    composite = opened.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    assert composite.GetBackgroundVolumeID() == opened.GetFirstNodeByName("MRI").GetID()
    assert composite.GetForegroundVolumeID() == opened.GetFirstNodeByName("iUS").GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.5)


def test_matched_keypoints_coincide_once_moved(mrml, folder):
    opened = loaded(mrml, folder)
    nodes = [opened.GetFirstNodeByName(f"{name} keypoints") for name in ("MRI", "iUS")]
    world = [mrml.util.arrayFromMarkupsControlPoints(node, world=True) for node in nodes]
    assert len(world[0]) == 60
    np.testing.assert_allclose(world[0], world[1], rtol=0, atol=1e-3)
    local = mrml.util.arrayFromMarkupsControlPoints(nodes[1], world=False)
    _, moving = outcome().matched_points()
    torch.testing.assert_close(torch.from_numpy(local).float(), moving[:60], rtol=0, atol=1e-4)
