"""Points on disk: landmark pairs of MRI and iUS, and Slicer markups. World is RAS mm."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..keypoints.keypoints import Keypoints
from .atomic import write_json
from .point_tables import read_csv, read_tag, read_text
from .transforms import from_lps

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
PAIR_FILES = ".tag, .csv (MRI, then iUS), or two point lists, MRI first: .mrk.json, .fcsv, .csv"
TABLES = (".csv", ".fcsv")

Path_ = str | os.PathLike[str]


def read_landmark_pairs(paths: Path_ | Sequence[Path_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Read corresponding points of MRI and iUS.

    Args:
        paths: one MNI ``.tag`` file of two volumes; one ``.csv`` of pairs, by its header or with
            columns 1-3 MRI and 4-6 iUS; one ``.mrk.json`` with two lists, MRI first; or two files
            with a point list each, MRI first. Lists are paired by label where both sides have the
            same unique ones, else by order.

    Returns:
        ``(points_mri [N, 3], points_ius [N, 3])``, float32, RAS mm.

    Raises:
        InputError: unreadable, not in pairs, or another kind of file.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [Path(path) for path in given]
    names = [file.name.lower() for file in files]
    if len(files) == 1 and names[0].endswith((".tag", ".csv")):
        table = read_tag(files[0]) if names[0].endswith(".tag") else read_csv(files[0])
        if not len(table.rows):
            raise InputError(f"{files[0]}: holds no landmark pairs; export them again")
        if table.rows.shape[1] != 6:
            raise InputError(f"{files[0]}: points of one image; give two files, MRI first")
        pairs = torch.tensor(table.rows, dtype=torch.float32)
        return pairs[:, :3].contiguous(), pairs[:, 3:].contiguous()
    if len(files) == 1 and names[0].endswith(".json"):
        lists = _markup_lists(files[0])
        if len(lists) != 2:
            raise InputError(
                f"{files[0]}: expected two point lists, got {len(lists)}; "
                "give two .mrk.json files, MRI first"
            )
        fixed, moving = (_point_list(markup, files[0]) for markup in lists)
        return _paired(fixed, moving, files[0])
    if len(files) == 2 and all(name.endswith((".json", *TABLES)) for name in names):
        return _paired(read_markups(files[0]), read_markups(files[1]), files[1])
    shown = ", ".join(map(str, files)) or "nothing"
    raise InputError(f"landmarks: expected {PAIR_FILES}; got {shown}")


def read_markups(path: Path_) -> tuple[torch.Tensor, list[str]]:
    """Read a point list: the first one of a Slicer markups file, an ``.fcsv``, or a table.

    Returns:
        ``(points [N, 3], labels)``, float32 RAS mm; points that were never placed are left out.

    Raises:
        InputError: missing file, no point list, or no placed point in it.
    """
    path = Path(path)
    if not path.name.lower().endswith(TABLES):
        return _point_list(_markup_lists(path)[0], path)
    table = read_csv(path)
    if not len(table.rows):
        raise InputError(f"{path}: holds no readable points; place points and save it again")
    if table.rows.shape[1] != 3:
        raise InputError(f"{path}: expected one point list with a header, such as label,r,a,s")
    return torch.tensor(table.rows, dtype=torch.float32), table.labels


def write_markups(
    points: torch.Tensor | Keypoints,
    path: Path_,
    labels: Sequence[str] | None = None,
    colour: tuple[float, float, float] = (1.0, 0.85, 0.1),
    size_mm: float = 2.0,
    notes: Sequence[str] | None = None,
) -> None:
    """Write a locked point list that Slicer opens, whole or not at all.

    Args:
        points: ``[N, 3]`` RAS mm, or keypoints, whose scale and score go to the descriptions.
        path: ends in ``.mrk.json``.
        labels: one per point; without them Slicer shows none.
        colour: red, green, blue, 0 to 1.
        size_mm: diameter of the glyphs.
        notes: one per point, shown as its description.

    Raises:
        InputError: another extension, a point that is not finite, or `atomic.whole` failed.
    """
    if not Path(path).name.lower().endswith(".mrk.json"):
        raise InputError(f"cannot write {path}: expected a markups name ending in .mrk.json")
    positions = points.points if isinstance(points, Keypoints) else points
    if not bool(torch.isfinite(positions).all()):
        raise InputError(f"cannot write {path}: a point is NaN or infinite")
    texts = list(notes or [""] * len(positions))
    if isinstance(points, Keypoints):
        figures = zip(points.scales.tolist(), points.scores.tolist(), strict=True)
        texts = [f"scale {scale:.2f} mm, score {score:.3g}" for scale, score in figures]
    shown = labels or [str(n + 1) for n in range(len(positions))]
    controls = [
        {"id": str(n + 1), "label": label, "description": text, "position": position}
        | {"selected": True, "locked": True, "visibility": True, "positionStatus": "defined"}
        for n, (label, text, position) in enumerate(
            zip(shown, texts, positions.double().cpu().tolist(), strict=True)
        )
    ]
    display = {"visibility": True, "opacity": 1.0, "color": colour, "selectedColor": colour}
    display |= {"glyphType": "Sphere3D", "useGlyphScale": False, "glyphSize": size_mm}
    display |= {"pointLabelsVisibility": labels is not None, "textScale": 2.5}
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "coordinateUnits": "mm"}
    markup |= {"locked": True, "labelFormat": "%N-%d", "controlPoints": controls}
    write_json({"@schema": SCHEMA, "markups": [markup | {"display": display}]}, path)


def _paired(
    fixed: tuple[torch.Tensor, list[str]], moving: tuple[torch.Tensor, list[str]], path: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    (mri, names_mri), (ius, names_ius) = fixed, moving
    if len(mri) != len(ius):
        raise InputError(
            f"{path}: {len(ius)} iUS points for {len(mri)} MRI points; place the missing ones"
        )
    if set(names_mri) == set(names_ius) and len(set(names_mri)) == len(mri):
        ius = ius[[names_ius.index(name) for name in names_mri]]
    return mri, ius


def _markup_lists(path: Path) -> list[dict[str, Any]]:
    try:
        lists = json.loads(read_text(path))["markups"]
        if lists and all(isinstance(markup["controlPoints"], list) for markup in lists):
            return lists
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: not a Slicer markups file; save the points as .mrk.json")


def _point_list(markup: dict[str, Any], path: Path) -> tuple[torch.Tensor, list[str]]:
    system = str(markup.get("coordinateSystem", "LPS")).upper()  # Slicer's default
    units = markup.get("coordinateUnits", "mm")
    if system not in ("LPS", "RAS") or units not in ("mm", ["mm"]):
        raise InputError(
            f"{path}: expected RAS or LPS in mm, got {system} in {units}; save it anew"
        )
    try:
        placed = [
            (str(point.get("label", "")), [float(x) for x in point["position"]])
            for point in markup["controlPoints"]
            if point.get("positionStatus", "defined") == "defined"
        ]
        points = torch.tensor([position for _, position in placed], dtype=torch.float32)
        readable = points.ndim == 2 and points.shape[1] == 3 and bool(torch.isfinite(points).all())
    except (ValueError, KeyError, TypeError, AttributeError):
        placed, points, readable = [], torch.empty(0, 3), False
    if not readable:
        raise InputError(f"{path}: holds no readable points; place points and save it again")
    return from_lps(points) if system == "LPS" else points, [label for label, _ in placed]
