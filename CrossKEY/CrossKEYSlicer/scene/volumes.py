"""Volume nodes as files for the worker, and what tells one image from another.

Files hold the image in the node's own coordinates: transforms above the node play no part, so that
a patient's model still fits after the MRI has been moved.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..problem import Problem
from . import chain


def check_volume(node: vtkMRMLScalarVolumeNode | None, role: str) -> None:
    """
    Raises:
        Problem: no node, or one that holds no 3D image.
    """
    if node is None:
        raise Problem(_("Select the {role} first.").format(role=role))
    image = node.GetImageData()
    if image is None or min(image.GetDimensions()) < 2:
        raise Problem(_("'{name}' holds no 3D image.").format(name=node.GetName()))


def check_pair(mri: vtkMRMLScalarVolumeNode | None, ius: vtkMRMLScalarVolumeNode | None) -> None:
    """
    Raises:
        Problem: one is missing or empty, or both are the same.
    """
    check_volume(mri, _("MRI"))
    check_volume(ius, _("ultrasound"))
    if mri is ius:
        raise Problem(_("MRI and ultrasound are the same volume; select two different ones."))


def overlap(mri: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode) -> float:
    """Share of the ultrasound's box that lies in the MRI's, as both lie in the world; 0 where a
    transform above one of them is not linear."""
    try:
        to_mri = chain.present_alignment(mri, ius)
    except Problem:
        return 0.0
    matrix = vtk.vtkMatrix4x4()
    ius.GetIJKToRASMatrix(matrix)
    size = np.array(ius.GetImageData().GetDimensions()) - 1.0
    steps = np.stack(np.meshgrid(*[np.linspace(0, n, 9) for n in size], indexing="ij"), -1)
    points = chain.moved(slicer.util.arrayFromVTKMatrix(matrix), steps.reshape(-1, 3))
    return float((~outside(mri, chain.moved(to_mri, points))).mean())


def write_volume(node: vtkMRMLScalarVolumeNode, path: Path) -> str:
    """Write without compression, which would make Slicer wait.

    Raises:
        Problem: the file cannot be written.
    """
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(0)
    if not storage.WriteData(node):
        raise Problem(_("{path} cannot be written; is the disk full?").format(path=path))
    return str(path)


def read_volume(node: vtkMRMLScalarVolumeNode, path: Path) -> None:
    """Put the image of a file into a node that exists.

    Raises:
        Problem: the file cannot be read.
    """
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetCenterImage(False)
    if not storage.ReadData(node):
        raise Problem(_("{path} cannot be read.").format(path=path))


def outside(node: vtkMRMLScalarVolumeNode, points: np.ndarray) -> np.ndarray:
    """Which points lie beyond the outer voxels, ``[N]`` bool.

    Args:
        points: ``[N, 3]`` RAS mm in the node's own coordinates.
    """
    ijk = _indices(node, points)
    last = np.array(node.GetImageData().GetDimensions()) - 1
    return ((ijk < -0.5) | (ijk > last + 0.5)).any(axis=1)


def _indices(node: vtkMRMLScalarVolumeNode, points: np.ndarray) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    to_ijk = slicer.util.arrayFromVTKMatrix(matrix)
    return points @ to_ijk[:3, :3].T + to_ijk[:3, 3]


_fingerprints: dict[str, tuple[tuple, str]] = {}  # by node: what it was computed from, and result


def fingerprint(node: vtkMRMLScalarVolumeNode) -> str:
    """Equal for equal samples and geometry, whatever the node is called.

    From every other sample along each axis: that tells patients apart, and Slicer need not wait.
    """
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    geometry = np.round(slicer.util.arrayFromVTKMatrix(matrix), 4).astype("<f4").tobytes()
    state = (node.GetImageData().GetMTime(), geometry)
    kept = _fingerprints.get(node.GetID())
    if kept is None or kept[0] != state:
        samples = np.ascontiguousarray(slicer.util.arrayFromVolume(node)[::2, ::2, ::2])
        kept = (state, hashlib.sha256(samples.tobytes() + geometry).hexdigest())
        _fingerprints[node.GetID()] = kept
    return kept[1]


def is_next_of(new: vtkMRMLScalarVolumeNode, ius: vtkMRMLScalarVolumeNode) -> bool:
    """Whether a volume that has arrived takes the place of the ultrasound: the same name but for
    numbers at its end, as Slicer and trackers number what arrives."""
    if new.GetClassName() != ius.GetClassName():
        return False
    first, second = (node.GetName().rstrip("0123456789_- ") for node in (new, ius))
    return first == second
