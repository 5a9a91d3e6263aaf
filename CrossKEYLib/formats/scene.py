"""A registration as a scene that 3D Slicer opens: volumes, transform, matched keypoints.

The scene is a ``.mrml`` file (XML) beside the files it names; Slicer itself is not needed here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from os import PathLike
from pathlib import Path

import torch

from ..geometry.intensity import rescaled
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from .atomic import whole
from .landmarks import write_markups
from .transforms import write_transform

SCENE = "scene.mrml"
MRI_COLOUR = (0.21, 0.77, 0.94)
IUS_COLOUR = (1.0, 0.69, 0.0)
GREY = "vtkMRMLColorTableNodeGrey"
IUS_COLOURS = "vtkMRMLColorTableNodeYellow"
OPACITY = "0.5"

MRI_ID, IUS_ID = "vtkMRMLScalarVolumeNode1", "vtkMRMLScalarVolumeNode2"
TRANSFORM_ID = "vtkMRMLLinearTransformNode1"


def write_scene(
    folder: str | PathLike[str],
    fixed: Volume,
    moving: Volume,
    matrix: Matrix,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
) -> list[Path]:
    """Write ``scene.mrml`` and its files into an existing folder.

    The iUS and its keypoints lie under a linear transform node named "iUS to MRI", so removing
    them from it shows the state before registration.

    Args:
        folder: where.
        fixed, moving: MRI and iUS, intensities as read.
        matrix: ``T_fixed_moving``, 4x4, RAS mm.
        points_fixed, points_moving: ``[K, 3]`` RAS mm, matched row by row.

    Returns:
        The files written, the scene last.

    Raises:
        InputError: a file cannot be written.
    """
    folder = Path(folder)
    # NRRD holds every geometry, sheared ones too, which NIfTI does not.
    fixed.write(folder / "MRI.nrrd")
    moving.write(folder / "iUS.nrrd")
    write_transform(matrix, folder / "iUS_to_MRI.tfm")
    write_markups(points_fixed, folder / "MRI_keypoints.mrk.json", colour=MRI_COLOUR)
    write_markups(points_moving, folder / "iUS_keypoints.mrk.json", colour=IUS_COLOUR)
    root = ET.Element("MRML", version="Slicer 5.10", userTags="")
    _add_transform(root, matrix)
    _add_volume(root, 1, "MRI", fixed, GREY, None)
    _add_volume(root, 2, "iUS", moving, IUS_COLOURS, TRANSFORM_ID)
    _add_markups(root, 1, "MRI keypoints", "MRI_keypoints.mrk.json", MRI_COLOUR, None)
    _add_markups(root, 2, "iUS keypoints", "iUS_keypoints.mrk.json", IUS_COLOUR, TRANSFORM_ID)
    for view in ("Red", "Green", "Yellow"):
        _add_slice_view(root, view)
    ET.indent(root)
    with whole(folder / SCENE) as temporary:
        ET.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)
    return files_of(folder)


def files_of(folder: str | PathLike[str]) -> list[Path]:
    """The files that `write_scene` leaves in ``folder``, the scene last."""
    names = ["MRI.nrrd", "iUS.nrrd", "iUS_to_MRI.tfm", "MRI_keypoints.mrk.json"]
    return [Path(folder) / name for name in (*names, "iUS_keypoints.mrk.json", SCENE)]


def _add(root: ET.Element, tag: str, node_id: str, name: str, **attributes: str) -> None:
    ET.SubElement(root, tag, {"id": node_id, "name": name, **attributes})


def _references(**nodes: str | None) -> str:
    return "".join(f"{role}:{node};" for role, node in nodes.items() if node)


def _numbers(values: object) -> str:
    return " ".join(format(float(v), ".17g") for v in values)  # type: ignore[attr-defined]


def _add_transform(root: ET.Element, matrix: Matrix) -> None:
    storage = "vtkMRMLTransformStorageNode1"
    _add(root, "TransformStorage", storage, "TransformStorage", fileName="iUS_to_MRI.tfm")
    _add(
        root,
        "LinearTransform",
        TRANSFORM_ID,
        "iUS to MRI",
        references=_references(storage=storage),
        matrixTransformToParent=_numbers(matrix.ravel()),
    )


def _add_volume(
    root: ET.Element, number: int, name: str, volume: Volume, colours: str, parent: str | None
) -> None:
    storage = f"vtkMRMLVolumeArchetypeStorageNode{number}"
    display = f"vtkMRMLScalarVolumeDisplayNode{number}"
    low, high = _window(volume)
    _add(
        root,
        "VolumeArchetypeStorage",
        storage,
        "Storage",
        fileName=f"{name}.nrrd",
        centerImage="0",
        UseOrientationFromFile="1",
    )
    # The empty outside of an iUS would darken the MRI under it, so it is cut by a threshold.
    cut = {"applyThreshold": "1", "lowerThreshold": f"{low:.9g}", "upperThreshold": "1e30"}
    _add(
        root,
        "VolumeDisplay",
        display,
        "Display",
        colorNodeID=colours,
        autoWindowLevel="0",
        window=f"{high - low:.9g}",
        level=f"{(high + low) / 2:.9g}",
        interpolate="1",
        **(cut if parent else {}),
    )
    _add(
        root,
        "Volume",
        f"vtkMRMLScalarVolumeNode{number}",
        name,
        references=_references(display=display, storage=storage, transform=parent),
    )


def _window(volume: Volume) -> tuple[float, float]:
    """Intensities shown as black and white: the range in which the scaled volume varies."""
    scaled = rescaled(volume).array
    varies = (scaled > 1e-5) & (scaled < 1)
    inner = volume.array[varies] if bool(varies.any()) else volume.array
    return float(inner.min()), float(inner.max())


def _add_markups(
    root: ET.Element,
    number: int,
    name: str,
    file: str,
    colour: tuple[float, float, float],
    parent: str | None,
) -> None:
    storage = f"vtkMRMLMarkupsJsonStorageNode{number}"
    display = f"vtkMRMLMarkupsFiducialDisplayNode{number}"
    _add(root, "MarkupsJsonStorage", storage, "Storage", fileName=file)
    _add(
        root,
        "MarkupsFiducialDisplay",
        display,
        "Display",
        color=_numbers(colour),
        selectedColor=_numbers(colour),
        useGlyphScale="false",
        glyphSize="2",
        glyphType="Sphere3D",
        pointLabelsVisibility="false",
    )
    _add(
        root,
        "MarkupsFiducial",
        f"vtkMRMLMarkupsFiducialNode{number}",
        name,
        locked="true",
        references=_references(display=display, storage=storage, transform=parent),
    )


def _add_slice_view(root: ET.Element, view: str) -> None:
    """MRI behind, iUS half-transparent in front."""
    _add(
        root,
        "SliceComposite",
        f"vtkMRMLSliceCompositeNode{view}",
        f"{view} composite",
        singletonTag=view,
        layoutName=view,
        foregroundOpacity=OPACITY,
        linkedControl="1",
        references=_references(backgroundVolume=MRI_ID, foregroundVolume=IUS_ID),
    )
