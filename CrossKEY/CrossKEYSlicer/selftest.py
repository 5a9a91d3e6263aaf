"""The module's self-test: the bundled case, with the real worker, in the application or its
stand-in."""

from __future__ import annotations

import csv
import time

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from .logic import CrossKEYLogic
from .panel import install
from .samples import sample_file, sample_folder
from .scene import chain
from .work.process import WorkerProcess

CLOSE_MM = 2.0


class CrossKEYTest(ScriptedLoadableModuleTest):
    """Run by ctest, and by Reload and Test in the module panel."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def runTest(self) -> None:
        self.setUp()
        self.test_bundled_case()

    def test_bundled_case(self) -> None:
        """Registered from the console, right in the world, and faster the second time.

        Skipped without PyTorch, which the machines that build extensions lack.
        """
        lacking = install.torch_lacking()
        if lacking:
            self.delayDisplay(f"Skipped: {lacking}")
            return
        self.delayDisplay("Registering the bundled case")
        mri, ius = (load_volume(name) for name in ("MRI", "iUS"))
        logic = CrossKEYLogic(WorkerProcess())
        try:
            seconds = []
            for _attempt in range(2):
                start = time.monotonic()
                result = logic.register(mri, ius)
                seconds.append(time.monotonic() - start)
                assert result["accepted"], result["reasons"]
                assert self.landmark_error(mri, ius) < CLOSE_MM
            assert not logic.job.folder.exists()
        finally:
            logic.close()
        self.seconds = seconds
        self.delayDisplay(f"Passed: {seconds[0]:.0f} s, then {seconds[1]:.0f} s")

    def landmark_error(self, mri, ius) -> float:
        """Mean over the bundled landmarks, in the world, mm."""
        with (sample_folder() / "landmarks.csv").open() as file:
            _header, *rows = csv.reader(file)
        points = np.array(rows, float)
        to_mri = chain.present_alignment(mri, ius)
        moved = chain.moved(to_mri, points[:, 3:])
        return float(np.linalg.norm(moved - points[:, :3], axis=1).mean())


def load_volume(name: str) -> slicer.vtkMRMLScalarVolumeNode:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(sample_file(name)))
    storage.SetCenterImage(False)
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    return node
