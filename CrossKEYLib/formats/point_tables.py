"""Tables of points on disk: ``.csv`` with or without a header, Slicer's ``.fcsv``, MNI ``.tag``.

What a header says of a column is honoured: image, axis and coordinate system, in any order. World
is RAS mm.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .options import tell
from .paths import printable

MRI = ("mri", "mr", "t1", "t1w", "t2", "t2w", "flair", "fixed", "preop", "preoperative")
IUS = ("ius", "us", "ultrasound", "moving", "intraop", "intraoperative")
AXES = {"r": (0, 1), "l": (0, -1), "a": (1, 1), "p": (1, -1), "s": (2, 1), "i": (2, -1)}
PLAIN_AXES = {"x": 0, "y": 1, "z": 2}  # of the coordinate system that is stated, else RAS
LPS_SIGNS = (-1, -1, 1)
SYSTEMS = {"ras": "ras", "lps": "lps", "0": "ras", "1": "lps"}  # Slicer 4 wrote numbers
OTHER = re.compile(
    r"(id|label|name|landmark|point|number|index|description|desc|comment|weight|defined|selected"
    r"|visible|locked|ow|ox|oy|oz|vis|sel|lock|associatednodeid)$"
)
SIX = "expected six numbers (MRI x y z, iUS x y z, RAS mm); correct the line"


Column = tuple[str | None, str | None, str | None]  # image, axis, coordinate system


@dataclass(frozen=True)
class Table:
    """Points of one image ``[N, 3]``, or pairs ``[N, 6]`` with MRI first; RAS mm."""

    rows: np.ndarray
    labels: list[str]


@dataclass(frozen=True)
class Columns:
    """Which cells of a row hold what: coordinates in the order of `Table`, with their signs."""

    cells: list[int]
    signs: list[int]
    count: int = 6  # of cells in a row
    label: int | None = None
    defined: int | None = None


def read_tag(path: Path) -> Table:
    """Point pairs of an MNI tag file of two volumes; weights and names are ignored.

    Raises:
        InputError: another kind of file, of one volume, or a line without six numbers.
    """
    # Names may hold what ends a line or the list
    text = re.sub(r'"[^"\n]*"', "", read_text(path))
    if "MNI Tag Point File" not in text or not (begin := re.search(r"Points\s*=", text)):
        raise InputError(f"{printable(path)}: not an MNI tag file; check the name or export again")
    volumes = re.search(r"Volumes\s*=\s*(\d+)", text)
    if not volumes or volumes[1] != "2":
        raise InputError(
            f"{printable(path)}: expected points of two volumes; save MRI and iUS points as one"
        )
    first = text[: begin.end()].count("\n") + 1
    rows = []
    for offset, line in enumerate(text[begin.end() :].split("\n")):
        line = line.split("%")[0]
        if row := line.split(";")[0].split():
            numbers = _numbers(row[:6])
            if len(numbers) != 6:
                raise InputError(f"{printable(path)}, line {first + offset}: {SIX}")
            rows.append(numbers)
        if ";" in line:
            break
    return Table(np.array(rows, float).reshape(-1, 6), [])


def read_csv(path: Path) -> Table:
    """A table of three columns of coordinates, or of six.

    Without a header they are RAS, of six the first three MRI.

    Raises:
        InputError: a header that contradicts itself, or a line that is not as it says.
    """
    lines, system, header = _lines(path)
    if not lines:
        return Table(np.empty((0, 6)), [])
    # A comma may be a decimal point, and a label may hold any of them.
    bare = re.sub(r'"[^"]*"', "", lines[0][1])
    delimiter = next((one for one in ";\t" if bare.count(one) >= 2), ",")
    rows = [(n, next(csv.reader([line], delimiter=delimiter))) for n, line in lines]
    comma = delimiter != ","
    names = [cell.strip() for cell in rows[0][1]]
    if header is not None:  # Slicer's own, in a comment
        columns = _columns(path, header, system)
    elif not _numbers([_dotted(name, comma) for name in names], some=True):
        columns, rows = _columns(path, names, system), rows[1:]
    else:
        signs = LPS_SIGNS if system == "lps" else (1, 1, 1)
        columns = Columns(list(range(6)), [*signs, *signs])
    return _table(path, rows, columns, comma)


def _table(path: Path, rows: list[tuple[int, list[str]]], columns: Columns, comma: bool) -> Table:
    found, labels = [], []
    for number, cells in rows:
        texts = [_dotted(cell.strip(), comma) for cell in cells]
        if columns.defined is not None and texts[columns.defined : columns.defined + 1] == ["0"]:
            continue  # a point that was never placed
        numbers = _numbers([texts[n] for n in columns.cells if n < len(texts)])
        if len(numbers) != len(columns.cells) or len(texts) != columns.count:
            what = SIX if len(columns.cells) == 6 else "expected three numbers; correct the line"
            raise InputError(f"{printable(path)}, line {number}: {what}")
        found.append(numbers)
        labels.append("" if columns.label is None else cells[columns.label].strip())
    shape = (-1, len(columns.cells))
    return Table(np.array(found, float).reshape(shape) * columns.signs, labels)


def _dotted(cell: str, comma: bool) -> str:
    """With a decimal point where the table may have decimal commas."""
    return cell.replace(",", ".") if comma else cell


def _lines(path: Path) -> tuple[list[tuple[int, str]], str | None, list[str] | None]:
    """Numbered lines that hold something, and what comments say: coordinate system, columns."""
    system, header, lines = None, None, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.startswith("#"):
            if line.strip():
                lines.append((number, line))
            continue
        if match := re.match(r"#\s*CoordinateSystem\s*=\s*(\w+)", line, re.IGNORECASE):
            system = SYSTEMS.get(match[1].lower())
            if system is None:
                raise InputError(
                    f"{printable(path)}: expected RAS or LPS, got coordinate system {match[1]}; "
                    "save it anew"
                )
        if match := re.match(r"#\s*columns\s*=\s*(.*)", line, re.IGNORECASE):
            header = [name.strip() for name in match[1].split(",")]
    return lines, system, header


def _columns(path: Path, names: list[str], system: str | None) -> Columns:
    """What the header says.

    Raises:
        InputError: it contradicts itself, or it is not understood and there are not six columns.
    """
    read = [_column(name) for name in names]
    if None in read and len(names) == 6:
        tell(
            f"{printable(path)}: its header is not understood ({', '.join(names)}); "
            "its columns are taken as MRI R A S, iUS R A S"
        )
        return Columns(list(range(6)), [1] * 6)
    coordinates = [(n, one) for n, one in enumerate(read) if one is not None and one[1] is not None]
    if len(coordinates) not in (3, 6):
        raise InputError(
            f"{printable(path)}: its header names {len(coordinates)} columns of coordinates, "
            "expected 3, or 6 such as mri_r,mri_a,mri_s,ius_r,ius_a,ius_s"
        )
    cells, signs = [], []
    for side in _sides(path, [column for _, column in coordinates]):
        placed = [coordinates[n] for n in side]
        axes = sorted((*_axis(path, column, system), cell) for cell, column in placed)
        if [axis for axis, _, _ in axes] != [0, 1, 2]:
            shown = ", ".join(names[cell] for cell, _ in placed)
            raise InputError(f"{printable(path)}: its header names no three axes ({shown})")
        cells += [cell for _, _, cell in axes]
        signs += [sign for _, sign, _ in axes]
    lower = [name.lower() for name in names]
    label = next((lower.index(name) for name in ("label", "name") if name in lower), None)
    defined = lower.index("defined") if "defined" in lower else None
    return Columns(cells, signs, len(names), label, defined)


def _sides(path: Path, read: list[Column]) -> list[list[int]]:
    """Places of the coordinates of each image among all of them, MRI first."""
    if len(read) == 3:
        return [[0, 1, 2]]
    images = [image for image, _, _ in read]
    mri = [n for n, image in enumerate(images) if image == "mri"]
    ius = [n for n, image in enumerate(images) if image == "ius"]
    if not mri and not ius:
        return [[0, 1, 2], [3, 4, 5]]
    rest = [n for n, image in enumerate(images) if image is None]
    mri, ius = (mri or rest, ius) if ius else (mri, rest)
    if len(mri) != 3 or len(ius) != 3:
        raise InputError(
            f"{printable(path)}: its header names {len(mri)} columns of the MRI and {len(ius)} of "
            "the ultrasound, expected three of each"
        )
    return [mri, ius]


def _column(name: str) -> Column | None:
    """Image, axis and coordinate system that a column's name states; None if not understood."""
    words = re.findall(r"[a-z]+\d?w?|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    image = axis = system = None
    other = False
    for word in words:
        bare = word.rstrip("0123456789")
        ending = next((w for w in (*MRI, *IUS) if word[:-1] == w and word[-1] in "xyz"), None)
        if word in MRI or word in IUS or ending:
            image = "mri" if (ending or word) in MRI else "ius"
            axis = word[-1] if ending else axis
        elif word in ("ras", "lps"):
            system = word
        elif bare in AXES or bare in PLAIN_AXES:
            axis = bare
        elif OTHER.match(word):
            other = True
        elif word not in ("mm", "coord", "coordinate", "position") and not word.isdigit():
            return None
    return (image, axis, system) if axis is not None or other else None


def _axis(path: Path, column: Column, system: str | None) -> tuple[int, int]:
    """World axis and sign of a column."""
    axis, own = str(column[1]), column[2]
    stated = own or system
    if axis in PLAIN_AXES:
        n = PLAIN_AXES[axis]
        return n, LPS_SIGNS[n] if stated == "lps" else 1
    if own is not None and axis not in own:
        raise InputError(f"{printable(path)}: its header contradicts itself ({axis} in {own})")
    return AXES[axis]


def _numbers(cells: list[str], some: bool = False) -> list[float]:
    """All cells as finite numbers, or none; with ``some``, those that are."""
    numbers = []
    for cell in cells:
        try:
            numbers.append(float(cell))
        except ValueError:
            numbers.append(float("nan"))
    finite = [number for number in numbers if np.isfinite(number)]
    return finite if some or len(finite) == len(numbers) else []


def read_text(path: Path) -> str:
    """
    Raises:
        InputError: no such file, or it cannot be read.
    """
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # of spreadsheets
        text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error.strerror})") from error
