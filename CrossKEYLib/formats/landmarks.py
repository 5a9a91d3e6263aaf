"""Points on disk: landmark pairs of MRI and iUS, and Slicer markups. World is RAS mm."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..keypoints.keypoints import Keypoints
from .atomic import write_json
from .transforms import from_lps

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
PAIR_FILES = ".tag, .csv (six columns: MRI, then iUS), one or two .mrk.json (MRI first)"

Path_ = str | os.PathLike[str]


def read_landmark_pairs(paths: Path_ | Sequence[Path_]) -> tuple[torch.Tensor, torch.Tensor]:
    """Read corresponding points of MRI and iUS.

    Args:
        paths: one MNI ``.tag`` file of two volumes or one ``.csv``, columns 1-3 MRI and 4-6 iUS;
            two ``.mrk.json``, MRI first; or one ``.mrk.json`` with two lists, MRI first. Markups
            are paired by label where both sides have the same unique ones, else by order.

    Returns:
        ``(points_mri [N, 3], points_ius [N, 3])``, float32, RAS mm.

    Raises:
        InputError: unreadable, not in pairs, or another kind of file.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [Path(path) for path in given]
    names = [file.name.lower() for file in files]
    if len(files) == 1 and names[0].endswith(".tag"):
        table = _tag_rows(files[0])
    elif len(files) == 1 and names[0].endswith(".csv"):
        table = _csv_rows(files[0])
    elif len(files) in (1, 2) and all(name.endswith(".json") for name in names):
        return _markup_pairs(files)
    else:
        shown = ", ".join(map(str, files)) or "nothing"
        raise InputError(f"landmarks: expected {PAIR_FILES}; got {shown}")
    if not table:
        raise InputError(f"{files[0]}: holds no landmark pairs; export them again")
    pairs = torch.tensor(table, dtype=torch.float32)
    return pairs[:, :3].contiguous(), pairs[:, 3:].contiguous()


def read_markups(path: Path_) -> tuple[torch.Tensor, list[str]]:
    """Read the first point list of a Slicer markups file, in either coordinate system.

    Returns:
        ``(points [N, 3], labels)``, float32 RAS mm; points that were never placed are left out.

    Raises:
        InputError: missing file, no markups file, or no placed point in it.
    """
    path = Path(path)
    points, labels = _point_list(_markup_lists(path)[0], path)
    return points, labels


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
        InputError: another extension, a point that is not finite, or `writing.whole` failed.
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


def _tag_rows(path: Path) -> list[list[float]]:
    """The point pairs of an MNI tag file; weights and names behind the numbers are ignored."""
    text = _text(path)
    if "MNI Tag Point File" not in text or not (begin := re.search(r"Points\s*=", text)):
        raise InputError(f"{path}: not an MNI tag file; check the name or export it again")
    volumes = re.search(r"Volumes\s*=\s*(\d+)", text)
    if not volumes or volumes[1] != "2":
        raise InputError(f"{path}: expected points of two volumes; save MRI and iUS points as one")
    first = text[: begin.end()].count("\n") + 1
    rows = []
    for offset, line in enumerate(text[begin.end() :].split("\n")):
        line = line.split("%")[0]
        if row := line.split(";")[0].split():
            rows.append(_six(row[:6], path, first + offset))
        if ";" in line:
            break
    return rows


def _csv_rows(path: Path) -> list[list[float]]:
    rows = []
    lines = enumerate(_text(path).splitlines(), 1)
    filled = [(n, line) for n, line in lines if line.strip() and not line.startswith("#")]
    for position, (number, line) in enumerate(filled):
        cells = [cell.strip() for cell in re.split(r"[,;\t]", line.strip())]
        if position == 0 and not any(_is_number(cell) for cell in cells):
            continue  # a header
        rows.append(_six(cells, path, number))
    return rows


def _six(cells: list[str], path: Path, line: int) -> list[float]:
    if len(cells) != 6 or not all(_is_number(cell) for cell in cells):
        raise InputError(
            f"{path}, line {line}: expected six numbers (MRI x y z, iUS x y z, RAS mm); "
            "correct the line"
        )
    return [float(cell) for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _markup_pairs(files: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    if len(files) == 2:
        lists = [_markup_lists(file)[0] for file in files]
    else:
        lists = _markup_lists(files[0])
        if len(lists) != 2:
            raise InputError(
                f"{files[0]}: expected two point lists, got {len(lists)}; "
                "give two .mrk.json files, MRI first"
            )
    (mri, names_mri), (ius, names_ius) = (
        _point_list(markup, file) for markup, file in zip(lists, [files[0], files[-1]], strict=True)
    )
    if len(mri) != len(ius):
        raise InputError(
            f"{files[-1]}: {len(ius)} iUS points for {len(mri)} MRI points; place the missing ones"
        )
    if set(names_mri) == set(names_ius) and len(set(names_mri)) == len(mri):
        ius = ius[[names_ius.index(name) for name in names_mri]]
    return mri, ius


def _markup_lists(path: Path) -> list[dict[str, Any]]:
    try:
        lists = json.loads(_text(path))["markups"]
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
