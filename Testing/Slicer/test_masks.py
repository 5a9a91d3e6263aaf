"""Masks of the MRI and of the ultrasound, chosen in the panel, as the worker gets them."""

from __future__ import annotations

import numpy as np
import pytest
from cases import choose, pose, registered, save, transform

BRIGHT = 50  # of the ball in `cases.make_volume`


def label_map(image, name="brain"):
    """Marks the ball of an image, on the image's grid."""
    import slicer
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
    ball = slicer.util.arrayFromVolume(image) > BRIGHT
    slicer.util.updateVolumeFromArray(node, 3 * ball.astype(np.int16))
    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    return node


def segmentation(image, name="brain"):
    """The same in two segments, as a person draws them."""
    import slicer

    labels = label_map(image)
    array = slicer.util.arrayFromVolume(labels)
    array[: len(array) // 2][array[: len(array) // 2] > 0] = 1
    slicer.util.arrayFromVolumeModified(labels)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    to_segments = slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode
    assert to_segments(labels, node)
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    slicer.mrmlScene.RemoveNode(labels)
    return node


def marked(path):
    """Points that a file marks, RAS mm, ``[N, 3]`` sorted."""
    from CrossKEYLib.formats.volumes import read_mask

    mask = read_mask(path)
    return points(mask.array.numpy() > 0, mask.ijk_to_ras)


def ball(image):
    """Points of the ball in the image's own coordinates."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    array = slicer.util.arrayFromVolume(image) > BRIGHT
    return points(array, slicer.util.arrayFromVTKMatrix(matrix))


def points(array, matrix):
    ijk = np.argwhere(array)[:, ::-1]
    ras = (ijk @ matrix[:3, :3].T + matrix[:3, 3]).round(2)
    return ras[np.lexsort(ras.T)]


@pytest.fixture
def asked(panel, volumes, worker):
    """Presses Register with masks; returns what the worker is asked, while its files are there."""

    def ask(**masks):
        panel.logic.worker.stop()
        panel.logic.worker = worker("slow")
        choose(panel, *volumes)
        for name, mask in masks.items():
            getattr(panel.ui, f"{name}Selector").setCurrentNode(mask)
        panel.ui.registerButton.click()
        assert panel.logic.busy, panel.ui.statusLabel.text
        return panel.logic.job.folder

    yield ask
    panel.logic.cancel()


@pytest.mark.parametrize("kind", [label_map, segmentation])
def test_a_mask_reaches_the_worker_where_it_lies(volumes, asked, kind):
    mri, ius = volumes
    folder = asked(mriMask=kind(mri), iusMask=kind(ius))
    for image, file in ((mri, "mri-mask.nrrd"), (ius, "ius-mask.nrrd")):
        np.testing.assert_allclose(marked(folder / file), ball(image), atol=0.02)


@pytest.mark.parametrize("kind", [label_map, segmentation])
def test_a_mask_under_another_transform_than_its_image(scene, volumes, asked, kind):
    """The ultrasound hangs under a tracker's transforms, and the mask was drawn over it in the
    world: what counts is where both are seen."""
    ius = volumes[1]
    mask = kind(ius)
    tracker = transform(scene, "tracker", pose(30, 40, -20, 5), ius, mask)
    transform(scene, "stand", pose(10, 0, 0, 60), tracker)
    mask.HardenTransform()
    assert mask.GetParentTransformNode() is None
    found = marked(asked(iusMask=mask) / "ius-mask.nrrd")
    wanted = ball(ius)
    assert len(found) == len(wanted)
    away = np.linalg.norm(found[:, None] - wanted[None], axis=2).min(axis=1)
    assert away.max() < 0.05


def test_a_segmentation_drawn_as_a_surface(scene, volumes, asked):
    import slicer
    import vtk

    mri, _ = volumes
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(*ball(mri).mean(axis=0))
    sphere.SetRadius(15)
    sphere.SetThetaResolution(40)
    sphere.SetPhiResolution(40)
    sphere.Update()
    mask = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surface")
    mask.SetSourceRepresentationToClosedSurface()
    assert mask.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball")
    found = marked(asked(mriMask=mask) / "mri-mask.nrrd")
    away = np.linalg.norm(found - ball(mri).mean(axis=0), axis=1)
    assert 13 < away.max() < 17
    name = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    assert not mask.GetSegmentation().ContainsRepresentation(name), "the person's own was changed"


def test_without_masks_the_worker_finds_them(panel, volumes, wait):
    registered(panel, wait, volumes)
    request = panel.logic.job.result["request"]
    assert (request["mri_mask"], request["ius_mask"]) == (None, None)


def test_an_empty_mask_is_told_before(panel, scene, volumes):
    import slicer

    choose(panel, *volumes)
    empty = label_map(volumes[1], "nothing drawn")
    slicer.util.updateVolumeFromArray(empty, np.zeros((4, 4, 4), np.int16))
    for mask in (empty, scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nothing drawn")):
        panel.ui.iusMaskSelector.setCurrentNode(mask)
        assert not panel.ui.registerButton.enabled
        assert "The mask 'nothing drawn' marks nothing" in panel.ui.registerButton.toolTip
        panel.ui.iusMaskSelector.setCurrentNode(None)
        assert panel.ui.registerButton.enabled


def test_a_segment_without_a_voxel_is_told(panel, scene, volumes):
    mask = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "hollow")
    mask.GetSegmentation().AddEmptySegment("one")
    choose(panel, *volumes)
    panel.ui.mriMaskSelector.setCurrentNode(mask)
    panel.ui.registerButton.click()
    assert "The mask 'hollow' marks nothing" in panel.ui.statusLabel.text
    assert panel.logic.job is None or not panel.logic.busy


def test_only_masks_are_offered(panel, volumes):
    mask = label_map(volumes[0])
    panel.ui.mriMaskSelector.setCurrentNode(volumes[0])
    assert panel.ui.mriMaskSelector.currentNode() is None
    panel.ui.mriMaskSelector.setCurrentNode(mask)
    assert panel.logic.parameters.mriMask is mask
    panel.ui.mriSelector.setCurrentNode(mask)
    assert panel.ui.mriSelector.currentNode() is None


def test_masks_are_saved_with_the_scene(panel, scene, volumes, tmp_path):
    choose(panel, *volumes)
    panel.ui.mriMaskSelector.setCurrentNode(label_map(volumes[0]))
    panel.ui.iusMaskSelector.setCurrentNode(segmentation(volumes[1], "sector"))
    scene.SetURL(str(tmp_path / "scene.mrml"))
    save(scene, tmp_path)
    scene.Clear(0)
    assert panel.ui.mriMaskSelector.currentNode() is None
    assert scene.Connect() == 1
    names = [getattr(panel.ui, f"{n}MaskSelector").currentNode().GetName() for n in ("mri", "ius")]
    assert names == ["brain", "sector"]


def test_masks_from_the_console_and_in_the_report(logic, volumes, tmp_path):
    mask, one = label_map(volumes[1], "sector <1>"), logic()
    result = one.register(*volumes, iusMask=mask)
    assert result["request"]["mri_mask"] is None
    assert result["request"]["ius_mask"].endswith("ius-mask.nrrd")
    one.saveReport(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "sector &lt;1&gt;" in page
    assert page.count("found by CrossKEY") == 1
    assert one.register(*volumes)["request"]["ius_mask"] is None
