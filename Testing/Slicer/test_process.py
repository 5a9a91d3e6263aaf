"""The worker process and whatever may happen to it."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from cases import pose, transform


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def folders(app) -> list[str]:
    return [name for name in os.listdir(app.temporaryPath) if name.startswith("CrossKEY-")]


def test_it_starts_on_demand_and_stays_warm(logic, volumes):
    one = logic()
    assert one.worker.pid == 0
    one.register(*volumes)
    pid = one.worker.pid
    one.register(*volumes)
    assert one.worker.pid == pid > 0
    assert alive(pid)
    one.close()
    assert not alive(pid)


def test_images_reach_the_worker_and_no_file_stays(logic, volumes, app):
    one = logic()
    one.register(*volumes)
    assert min(one.job.result["files"]) > 24 * 30 * 28
    assert folders(app) == []


def test_written_image_keeps_its_own_coordinates(scene, volumes, tmp_path):
    import numpy as np
    import slicer
    import vtk
    from CrossKEYSlicer.scene.volumes import write_volume

    from CrossKEYLib import Volume

    transform(scene, "moved", pose(33, 10, 20, 30), volumes[0])
    read = Volume.read(write_volume(volumes[0], tmp_path / "x.nrrd"))
    np.testing.assert_allclose(read.array.numpy(), slicer.util.arrayFromVolume(volumes[0]))
    matrix = vtk.vtkMatrix4x4()
    volumes[0].GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(read.ijk_to_ras, slicer.util.arrayFromVTKMatrix(matrix), atol=1e-5)
    assert volumes[0].GetStorageNode() is None


def test_garbage_on_stdout_is_ignored(logic, volumes):
    one = logic("garbage")
    assert one.register(*volumes)["accepted"]
    assert "no json" in one.worker.log


@pytest.mark.parametrize(
    ("mode", "words"), [("crash", "out of memory"), ("cut", "ended"), ("deaf", "ended")]
)
def test_death_is_told_and_the_next_request_starts_anew(logic, volumes, app, mode, words):
    from CrossKEYSlicer.problem import Problem

    one = logic(mode)
    for _attempt in range(2):
        with pytest.raises(Problem, match="ended unexpectedly") as told:
            one.register(*volumes)
        assert words in str(told.value)
        assert one.worker.pid == 0
        assert not one.busy
    assert folders(app) == []
    assert volumes[1].GetParentTransformNode() is None


def test_the_launchers_own_line_is_not_what_is_told(app):
    from CrossKEYSlicer.work.process import last_words

    log = [
        "  File model.py, line 3",
        "MemoryError: 3 GB asked for",
        "",
        "error: [/opt/Slicer/bin/./python-real] exit abnormally - Report the problem.",
    ]
    assert last_words(log).endswith("MemoryError: 3 GB asked for")
    assert "exit abnormally" not in last_words(log)
    assert last_words(["", " "]) == ""


def test_the_worker_has_ended_before_its_files_go(logic, volumes, wait, monkeypatch):
    from CrossKEYSlicer.work import job

    one, pids = logic("slow"), []
    one.parameters.mri, one.parameters.ius = volumes
    one.startRegistration()
    wait(lambda: one.job.stage == "keypoints")
    pid, remove = one.worker.pid, job.shutil.rmtree
    monkeypatch.setattr(
        job.shutil, "rmtree", lambda *a, **o: (pids.append(alive(pid)), remove(*a, **o))
    )
    one.cancel()
    assert pids == [False]


def test_killed_from_outside(logic, volumes, wait):
    one = logic("slow")
    one.parameters.mri, one.parameters.ius = volumes
    one.startRegistration()
    wait(lambda: one.job.stage == "keypoints")
    os.kill(one.worker.pid, signal.SIGKILL)
    wait(lambda: not one.busy)
    assert one.job.state == "failed"
    assert "ended unexpectedly" in one.job.message


def test_missing_program(scene, volumes):
    from CrossKEYSlicer.logic import CrossKEYLogic
    from CrossKEYSlicer.problem import Problem
    from CrossKEYSlicer.work.process import WorkerProcess

    one = CrossKEYLogic(WorkerProcess(["/no/such/program"]))
    with pytest.raises(Problem, match="ended unexpectedly"):
        one.register(*volumes)
    one.close()


def test_expected_error_is_told_and_the_process_stays(logic, volumes):
    from CrossKEYSlicer.problem import Problem

    one = logic("fail")
    with pytest.raises(Problem, match=r"^the MRI shows too little brain$"):
        one.register(*volumes)
    assert alive(one.worker.pid)


def test_close_in_the_middle_leaves_nothing(logic, volumes, wait, app):
    one = logic("slow")
    one.parameters.mri, one.parameters.ius = volumes
    one.startRegistration()
    wait(lambda: one.job.stage == "keypoints")
    pid = one.worker.pid
    assert len(folders(app)) == 1
    one.close()
    assert not alive(pid)
    assert folders(app) == []
    assert one.job.state == "cancelled"


def test_only_one_at_a_time(logic, volumes, wait):
    from CrossKEYSlicer.problem import Problem

    one = logic("slow")
    one.parameters.mri, one.parameters.ius = volumes
    one.startRegistration()
    with pytest.raises(Problem, match="already at work"):
        one.register(*volumes)
    assert one.busy


def test_the_real_command_finds_the_library(scene):
    from CrossKEYSlicer.work import process

    assert process.worker_command()[0] == sys.executable
    assert os.path.isfile(os.path.join(process.library_folder(), "CrossKEYLib", "worker.py"))


def test_choices_that_cannot_be_are_told_in_a_sentence(panel, volumes):
    from CrossKEYSlicer.problem import Problem

    logic = panel.logic
    with pytest.raises(Problem, match=r"^minutes cannot be 0\.01: "):
        logic.prepare(volumes[0], minutes=0.01)
    with pytest.raises(Problem, match="ius cannot be here"):
        logic.register(volumes[0], "here")
    with pytest.raises(Problem, match="At most two more"):
        logic.prepare(volumes[0], others=volumes * 2)
    assert not logic.busy
