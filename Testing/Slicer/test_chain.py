"""The result is right in the world whatever transforms the scene has, and nobody's are harmed."""

from __future__ import annotations

import numpy as np
import pytest
from cases import check_in_world, make_volume, names_above, pose, transform, world


def test_bare_volumes(logic, volumes):
    result = logic().register(*volumes)
    assert result["accepted"]
    check_in_world(*volumes)
    assert names_above(volumes[1]) == ["iUS to MRI"]
    assert volumes[0].GetParentTransformNode() is None


def test_tracked_ultrasound_and_moved_mri(logic, scene, volumes):
    mri, ius = volumes
    probe = transform(scene, "probe", pose(40, 5, 6, 7), ius)
    tracker = transform(scene, "tracker", pose(-100, 300, -20, 50), probe)
    moved = transform(scene, "moved MRI", pose(15, -3, 2, 30), mri)
    before = world(mri)
    logic().register(mri, ius)
    check_in_world(mri, ius)
    assert names_above(ius) == ["probe", "tracker", "iUS to MRI"]
    assert names_above(mri) == ["moved MRI"]
    np.testing.assert_allclose(world(mri), before)
    for node, matrix in (
        (probe, pose(40, 5, 6, 7)),
        (tracker, pose(-100, 300, -20, 50)),
        (moved, pose(15, -3, 2, 30)),
    ):
        from CrossKEYSlicer.scene import chain

        np.testing.assert_allclose(chain.matrix_of(node), matrix)


def test_shared_transform_stays_above_the_correction(logic, scene, volumes):
    """Patient registration of a navigation system moves both; the MRI must not move twice."""
    mri, ius = volumes
    probe = transform(scene, "probe", pose(70, 1, 2, 3), ius)
    patient = transform(scene, "patient", pose(25, 100, 0, -40), probe, mri)
    before = world(mri)
    logic().register(mri, ius)
    check_in_world(mri, ius)
    np.testing.assert_allclose(world(mri), before)
    assert names_above(ius) == ["probe", "iUS to MRI", "patient"]
    assert names_above(mri) == ["patient"]
    patient.SetAndObserveTransformNodeID(None)
    transform(scene, "table", pose(-60, 0, 50, 0), patient)
    check_in_world(mri, ius)


def test_second_registration_keeps_the_chain(logic, scene, volumes):
    mri, ius = volumes
    probe = transform(scene, "probe", pose(40, 5, 6, 7), ius)
    one = logic()
    one.register(mri, ius)
    from CrossKEYSlicer.scene import chain

    chain.set_matrix(probe, pose(-20, 9, 9, 9))
    one.register(mri, ius)
    check_in_world(mri, ius)
    assert names_above(ius) == ["probe", "iUS to MRI"]


def test_start_from_the_present_alignment(logic, scene, volumes):
    mri, ius = volumes
    transform(scene, "tracker", pose(30, 1, 2, 3), ius)
    transform(scene, "moved", pose(-10, 4, 5, 6), mri)
    one = logic()
    one.register(mri, ius, fromPresent=True)
    expected = np.linalg.inv(pose(-10, 4, 5, 6)) @ pose(30, 1, 2, 3)
    np.testing.assert_allclose(one.job.result["request"]["initial"], expected, atol=1e-9)
    one.register(mri, ius)
    assert one.job.result["request"]["initial"] is None


def test_output_transform_above_the_mri_is_refused(logic, scene, volumes):
    from CrossKEYSlicer.problem import Problem

    shared = transform(scene, "shared", np.eye(4), *volumes)
    with pytest.raises(Problem, match="'shared' moves the MRI"):
        logic().register(*volumes, transform=shared)
    assert names_above(volumes[1]) == ["shared"]


def test_bent_transform_is_refused(logic, scene, volumes):
    from CrossKEYSlicer.problem import Problem

    grid = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bent")
    volumes[1].SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(Problem, match="not linear"):
        logic().register(*volumes)


@pytest.mark.parametrize("tracked", [False, True])
def test_before_after_and_undo(logic, scene, volumes, tracked):
    mri, ius = volumes
    if tracked:
        transform(scene, "probe", pose(40, 5, 6, 7), ius)
    before, names = world(ius), names_above(ius)
    one = logic()
    one.register(mri, ius)
    after = world(ius)
    one.showAfter(False)
    np.testing.assert_allclose(world(ius), before, atol=1e-9)
    one.showAfter(True)
    np.testing.assert_allclose(world(ius), after, atol=1e-9)
    one.undo()
    np.testing.assert_allclose(world(ius), before, atol=1e-9)
    assert names_above(ius) == names
    from CrossKEYSlicer.problem import Problem

    with pytest.raises(Problem, match="no registration to undo"):
        one.undo()


def test_undo_of_the_second_returns_to_the_first(logic, volumes):
    one = logic()
    from CrossKEYSlicer.scene import chain

    one.register(*volumes)
    chain.set_matrix(one.parameters.transform, pose(5, 1, 1, 1))
    by_hand = world(volumes[1])
    one.register(*volumes)
    check_in_world(*volumes)
    one.undo()
    np.testing.assert_allclose(world(volumes[1]), by_hand)
    assert names_above(volumes[1]) == ["iUS to MRI"]


def test_another_ultrasound_gets_its_own_transform(logic, volumes):
    """And the first one keeps what it has."""
    mri, first = volumes
    second = make_volume("iUS 2", 4)
    one = logic()
    one.register(mri, first)
    kept, place = first.GetParentTransformNode(), world(first)
    one.register(mri, second)
    check_in_world(mri, second)
    assert second.GetParentTransformNode() is one.parameters.transform is not kept
    one.showAfter(False)
    assert first.GetParentTransformNode() is kept
    np.testing.assert_allclose(world(first), place)
