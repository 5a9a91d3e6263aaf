"""An image as another scanner sequence would show it, at another time: bent by a known amount."""

from __future__ import annotations

import numpy as np
from cases import pose, transform
from scipy.ndimage import map_coordinates

BEND_VOXELS, WAVE_VOXELS = 3.0, 60.0


def bent(ijk: np.ndarray) -> np.ndarray:
    """Where the image has what its bent copy shows at indices ``[..., 3]``."""
    return ijk + BEND_VOXELS * np.sin(2 * np.pi * np.roll(ijk, 1, axis=-1) / WAVE_VOXELS)


def other_contrast(image):
    """A copy of an image: bent, dark where it was bright, moved, and under a transform."""
    import slicer

    array = slicer.util.arrayFromVolume(image).astype(np.float32)
    kji = np.stack(np.indices(array.shape), axis=-1)
    source = np.moveaxis(bent(kji[..., ::-1])[..., ::-1], -1, 0)
    warped = map_coordinates(array, source, order=1)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other contrast")
    slicer.util.updateVolumeFromArray(node, np.where(warped > 0, warped.max() - warped, 0))
    matrix = slicer.util.arrayFromVTKMatrix(ijk_to_ras(image))
    matrix[:3, 3] += (12, -9, 7)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.CreateDefaultDisplayNodes()
    transform(slicer.mrmlScene, "navigation", pose(15, 30, 10, -20), node)
    return node


def ijk_to_ras(image):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(matrix)
    return matrix


def in_world(image, ijk: np.ndarray) -> np.ndarray:
    """Voxel indices ``[..., 3]`` to RAS mm of the world."""
    import slicer
    from CrossKEYSlicer.scene import chain

    own = chain.moved(slicer.util.arrayFromVTKMatrix(ijk_to_ras(image)), ijk)
    return chain.moved(chain.between(image.GetParentTransformNode(), None), own)
