"""What the slice and 3D views show, drawn by Slicer's displayable managers."""

from __future__ import annotations

import subprocess
import sys

import fake_worker
import numpy as np
import pytest
from cases import landmarks, pause, world

PROBE = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(True); w.Render()"
TOLERANCE_PX = 3.0


@pytest.fixture(scope="module", autouse=True)
def _can_render():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("nothing to render with; install EGL or OSMesa")


def centre(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean row and column of the pixels of a mask."""
    assert mask.sum() > 50, "this is not to be seen at all"
    return np.argwhere(mask).mean(axis=0)


def yellow(picture: np.ndarray) -> np.ndarray:
    """Bright ultrasound alone or over the MRI: blue falls behind."""
    return picture[..., 0].astype(int) - picture[..., 2] > 60


def coloured(picture: np.ndarray, colour: tuple[float, float, float]) -> int:
    return int((np.abs(picture - 255 * np.array(colour)).max(axis=2) < 40).sum())


def test_the_ultrasound_moves_onto_its_place(app, logic, volumes):
    """On the screen it moves by as much as the transform says."""
    import slicer
    import vtk
    from CrossKEYSlicer.scene import views
    from host.views import SliceView

    mri, ius = volumes
    view = SliceView(app)
    one = logic()
    one.register(mri, ius)
    one.setUpViews()
    views.fade(one.parameters, 1.0)
    view.fit()
    for markups in ("mriKeypoints", "iusKeypoints", "inliers"):
        getattr(one.parameters, markups).GetDisplayNode().SetVisibility(False)
    to_screen = np.linalg.inv(slicer.util.arrayFromVTKMatrix(view.node.GetXYToRAS()))
    ball = np.array([14.0, 15.0, 12.0, 1.0])  # voxels, see `cases.make_volume`
    to_ras = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(to_ras)
    ball = slicer.util.arrayFromVTKMatrix(to_ras) @ ball
    seen, meant = [], []
    for after in (False, True):
        one.showAfter(after)
        x, y = (to_screen @ world(ius) @ ball)[:2]
        picture = view.picture()
        seen.append(centre(picture, yellow(picture)))
        meant.append(np.array([picture.shape[0] - 1 - y, x]))
    moved, expected = seen[1] - seen[0], meant[1] - meant[0]
    assert np.linalg.norm(expected) > 10
    np.testing.assert_allclose(moved, expected, atol=TOLERANCE_PX)


def test_keypoints_are_seen_in_slice_and_space(app, logic, volumes):
    from CrossKEYSlicer.scene import result_nodes, views
    from host.views import SliceView, SpaceView

    slices, space = SliceView(app, "Green"), SpaceView(app)
    one = logic()
    one.register(*volumes)
    one.setUpViews()
    slices.fit()
    views.jump(result_nodes.match_place(one.parameters, 0))
    green = result_nodes.POINT_SETS["inliers"][1]
    with_points = slices.picture(), space.picture()
    for markups in ("mriKeypoints", "iusKeypoints", "inliers"):
        getattr(one.parameters, markups).GetDisplayNode().SetVisibility(False)
    without = slices.picture(), space.picture()
    assert coloured(with_points[0], green) > 50 > coloured(without[0], green)
    assert np.abs(with_points[1].astype(int) - without[1]).max() > 60


def test_a_point_dragged_with_the_mouse_is_found_again(app, panel, scene, volumes, wait):
    """While the button is held down nothing is done, however long."""
    import slicer
    from host.views import Mouse, SliceView

    points = landmarks(scene, "Landmarks", [[-20.0, 30, 0]], ["cyst"])
    points.CreateDefaultDisplayNodes()
    view = SliceView(app)
    view.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volumes[0].GetID())
    view.node.SetOrientation("Axial")
    view.fit()
    view.node.JumpSliceByCentering(-20, 30, 0)
    view.picture()
    ui, p = panel.ui, panel.logic.parameters
    p.landmarksFrom, p.landmarksTo, p.landmarkPoints = *volumes, points
    ui.landmarksAgainCheckBox.click()
    mouse = Mouse(view)
    mouse.take([-20, 30, 0])
    mouse.drag(30)
    pause(0.5)
    assert panel.logic.job is None
    mouse.release()
    wait(lambda: panel.logic.job is not None and not panel.logic.busy)
    place = slicer.util.arrayFromMarkupsControlPoints(points)[0]
    assert np.linalg.norm(place - (-20, 30, 0)) > 3
    found = slicer.util.arrayFromMarkupsControlPoints(p.foundLandmarks)
    np.testing.assert_allclose(found, [fake_worker.moved(list(place))], atol=1e-4)


def test_mri_and_ultrasound_beside_each_other_scroll_together(app, panel, scene, volumes, wait):
    import slicer
    from cases import registered
    from host.views import SliceView

    layout = scene.AddNode(slicer.vtkMRMLLayoutNode())
    four_up = layout.SlicerLayoutFourUpView
    layout.SetViewArrangement(four_up)
    left, right = SliceView(app, "Red"), SliceView(app, "Yellow")
    for view in (left, right):
        view.logic.ResizeSliceNode(*view.window.GetSize())
    registered(panel, wait, volumes)
    panel.ui.besideCheckBox.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutSideBySideView
    for view, image in zip((left, right), volumes, strict=True):
        composite = view.logic.GetSliceCompositeNode()
        assert composite.GetBackgroundVolumeID() == image.GetID()
        assert not composite.GetForegroundVolumeID()
    assert left.node.GetFieldOfView() == right.node.GetFieldOfView()
    assert yellow(right.picture()).sum() > 50 > yellow(left.picture()).sum()
    assert not panel.ui.fadeSlider.enabled
    left.logic.StartSliceOffsetInteraction()  # as the mouse wheel does
    left.logic.SetSliceOffset(left.node.GetSliceOffset() + 7)
    left.logic.EndSliceOffsetInteraction()
    assert right.node.GetSliceOffset() == pytest.approx(left.node.GetSliceOffset())
    panel.ui.viewsButton.click()
    assert not left.logic.GetSliceCompositeNode().GetForegroundVolumeID(), "it is over it again"
    panel.ui.besideCheckBox.click()
    assert layout.GetViewArrangement() == four_up
    over = {view.logic.GetSliceCompositeNode().GetForegroundVolumeID() for view in (left, right)}
    assert over == {volumes[1].GetID()}
    assert not left.logic.GetSliceCompositeNode().GetLinkedControl()
    assert panel.ui.fadeSlider.enabled


def test_a_layout_chosen_meanwhile_is_kept(panel, scene, volumes, wait):
    import slicer
    from cases import choose

    layout = scene.AddNode(slicer.vtkMRMLLayoutNode())
    choose(panel, *volumes)
    panel.ui.besideCheckBox.click()
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    panel.ui.besideCheckBox.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView


@pytest.fixture
def checkered(app, panel, volumes, wait):
    """A registration under a checkerboard, and a view of it."""
    from cases import registered
    from host.views import SliceView

    view = SliceView(app)
    registered(panel, wait, volumes)
    panel.ui.fadeSlider.value = 1.0
    for box in (panel.ui.keypointsCheckBox, panel.ui.inliersCheckBox, panel.ui.linesCheckBox):
        box.click()
    view.fit()
    whole = yellow(view.picture()).sum()
    offset = view.node.GetSliceOffset() + 3
    view.node.SetSliceOffset(offset)
    panel.ui.checkerCheckBox.click()
    assert view.node.GetSliceOffset() == pytest.approx(offset), "the place is lost"
    return view, whole


def front(view):
    import slicer

    composite = view.logic.GetSliceCompositeNode()
    return slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())


def test_a_checkerboard_shows_about_half_of_the_ultrasound(panel, volumes, checkered):
    view, whole = checkered
    assert 0.25 * whole < yellow(view.picture()).sum() < 0.75 * whole
    assert front(view).GetParentTransformNode() is volumes[1].GetParentTransformNode()
    panel.ui.checkerCheckBox.click()
    assert front(view) is volumes[1]
    assert panel.logic.parameters.checkerVolume is None


@pytest.mark.parametrize("change", ["voxels", "image"])
def test_a_checkerboard_ends_when_its_image_is_another(panel, volumes, checkered, change):
    import slicer
    from cases import make_volume

    view, _ = checkered
    if change == "voxels":
        slicer.util.arrayFromVolume(volumes[1])[:5] = 7
        slicer.util.arrayFromVolumeModified(volumes[1])
        wanted = volumes[1]
    else:
        wanted = make_volume("iUS 2", 5)
        panel.ui.iusSelector.setCurrentNode(wanted)
    pause(0.3)
    assert not panel.ui.checkerCheckBox.checked
    assert front(view) is wanted
    assert panel.logic.parameters.checkerVolume is None


def test_undo_takes_the_checkerboard_along(panel, volumes, checkered):
    view, _ = checkered
    panel.ui.undoButton.click()
    pause(0.2)
    assert volumes[1].GetParentTransformNode() is None
    assert front(view).GetParentTransformNode() is None
