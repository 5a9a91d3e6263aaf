"""Keypoints, lines and table of a registration, as nodes of the scene."""

from __future__ import annotations

import fake_worker
import numpy as np
import pytest
from cases import landmarks, pose, transform, world

NODES = ("mriKeypoints", "iusKeypoints", "inliers", "matchLines", "matchTable", "transform")


def counts(scene) -> dict[str, int]:
    nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
    kinds = [node.GetClassName() for node in nodes]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def positions(node, world=True):
    import slicer

    return slicer.util.arrayFromMarkupsControlPoints(node, world=world)


def test_markups_are_where_they_belong(logic, scene, volumes):
    mri, ius = volumes
    transform(scene, "tracker", pose(50, 7, 8, 9), ius)
    transform(scene, "moved", pose(-10, 4, 5, 6), mri)
    one = logic()
    one.register(mri, ius)
    p, matches = one.parameters, fake_worker.matches()
    order = np.argsort(-np.array(matches["score"]), kind="stable")
    expected = np.c_[np.array(matches["mri"])[order], np.ones(len(order))] @ world(mri).T
    np.testing.assert_allclose(positions(p.mriKeypoints), expected[:, :3], atol=1e-6)
    # Inliers of iUS and MRI lie within their residuals once the ultrasound has been moved
    gap = np.linalg.norm(positions(p.mriKeypoints) - positions(p.iusKeypoints), axis=1)
    np.testing.assert_allclose(gap, np.array(matches["residual_mm"])[order], atol=1e-5)
    assert p.inliers.GetNumberOfControlPoints() == sum(matches["inlier"]) == 30


def test_markups_are_locked_and_quiet(logic, volumes):
    one = logic()
    one.register(*volumes)
    colours = set()
    for name in NODES[:3]:
        node = getattr(one.parameters, name)
        display = node.GetDisplayNode()
        assert node.GetLocked()
        assert not display.GetPointLabelsVisibility()
        assert not display.GetPropertiesLabelVisibility()
        colours.add(display.GetSelectedColor())
    assert len(colours) == 3


def test_everything_lies_in_one_folder(logic, scene, volumes):
    import slicer

    one = logic()
    one.register(*volumes)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = tree.GetItemChildWithName(tree.GetSceneItemID(), "CrossKEY")
    for name in NODES[:5]:
        item = tree.GetItemByDataNode(getattr(one.parameters, name))
        assert tree.GetItemParent(item) == folder, name


def test_lines_follow_the_toggle_and_carry_residuals(logic, volumes):
    import slicer

    one = logic()
    one.register(*volumes)
    p = one.parameters

    def lengths():
        ends = slicer.util.arrayFromModelPoints(p.matchLines).reshape(-1, 2, 3)
        return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)

    residuals = slicer.util.arrayFromModelPointData(p.matchLines, "Residual (mm)")[::2]
    np.testing.assert_allclose(lengths(), residuals, atol=1e-5)
    assert p.matchLines.GetDisplayNode().GetScalarVisibility()
    assert p.matchLines.GetDisplayNode().GetActiveScalarName() == "Residual (mm)"
    one.showAfter(False)
    assert lengths().mean() > residuals.mean() + 5


def test_second_registration_leaves_no_litter(logic, scene, volumes):
    one = logic()
    one.register(*volumes)
    nodes = {name: getattr(one.parameters, name) for name in NODES}
    before = counts(scene)
    one.register(*volumes)
    assert counts(scene) == before
    assert all(getattr(one.parameters, name) is node for name, node in nodes.items())


def test_deleted_nodes_are_made_again(logic, scene, volumes):
    one = logic()
    one.register(*volumes)
    for name in NODES:
        scene.RemoveNode(getattr(one.parameters, name))
    one.register(*volumes)
    assert all(scene.IsNodePresent(getattr(one.parameters, name)) for name in NODES)


def test_many_matches_are_thinned_to_the_first_and_listed_best_first(app):
    from CrossKEYSlicer.scene import result_nodes

    count = 2000
    score = np.random.default_rng(0).random(count)
    best = result_nodes.shown_matches(
        {"score": score.tolist(), "mri": np.eye(3)[:1].repeat(count, 0)}
    )
    assert len(best["mri"]) == len(best["score"]) == result_nodes.SHOWN
    first = score[: result_nodes.SHOWN]  # the worker has spread them over the ultrasound
    np.testing.assert_array_equal(best["score"], np.sort(first)[::-1])


def test_refusal_changes_nothing_but_the_verdict(logic, scene, volumes):
    good = logic()
    good.register(*volumes)
    before, matrix, correction = counts(scene), world(volumes[1]), good.parameters.correction
    good.worker.stop()
    bad = logic("refuse")
    result = bad.register(*volumes)
    assert not result["accepted"]
    assert bad.outcome()["reasons"] == result["reasons"]
    assert counts(scene) == before
    np.testing.assert_array_equal(world(volumes[1]), matrix)
    assert bad.parameters.correction == correction


def test_refusal_of_the_first_adds_no_transform(logic, scene, volumes):
    assert not logic("refuse").register(*volumes)["accepted"]
    assert volumes[1].GetParentTransformNode() is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


@pytest.mark.parametrize("hung", [False, True])
@pytest.mark.parametrize("shown_after", [False, True])
def test_landmark_errors(logic, scene, volumes, hung, shown_after):
    """Whether the landmarks hang with the ultrasound or not, whichever state is shown."""
    ius = np.array([[0.0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 0, 20]])
    mri = np.array([fake_worker.moved(point) for point in ius])
    mri[:, 2] += 2.0
    on_mri = landmarks(scene, "a", mri, "abcd")
    on_ius = landmarks(scene, "b", ius[::-1], "dcba")
    one = logic()
    one.register(*volumes)
    if hung:
        on_ius.SetAndObserveTransformNodeID(one.parameters.transform.GetID())
    one.showAfter(shown_after)
    errors = one.evaluate(on_mri, on_ius)
    assert errors["count"] == 4
    assert errors["after"] == pytest.approx(2.0, abs=1e-5)
    assert errors["before"] == pytest.approx(np.linalg.norm(mri - ius, axis=1).mean(), abs=1e-5)


def test_landmarks_that_are_no_pairs(logic, scene, volumes):
    from CrossKEYSlicer.problem import Problem

    one = logic()
    with pytest.raises(Problem, match="Select the landmarks"):
        one.evaluate()
    a, b = landmarks(scene, "a", np.eye(3)), landmarks(scene, "b", np.eye(3)[:2])
    with pytest.raises(Problem, match="3 landmarks on the MRI, 2"):
        one.evaluate(a, b)
    with pytest.raises(Problem, match="Register first"):
        one.evaluate(a, a)
