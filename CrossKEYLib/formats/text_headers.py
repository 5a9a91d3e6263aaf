"""NRRD and MetaImage: SimpleITK reads them, after their text headers were read here.

SimpleITK keeps quiet about a missing orientation, about units, and about a file that is a sequence
of frames rather than a volume.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..geometry.transform import Matrix, from_parts
from .itk import TRUNCATED, ijk_to_ras, image_of
from .options import ReadOptions, chosen_frame, tell
from .units import to_mm

META_ORIENTATION = ("transformmatrix", "rotation", "orientation")
META_SPACING = ("elementspacing", "elementsize")
SPACES = re.compile(
    r"(left-posterior-superior|right-anterior-superior|left-anterior-superior|lps|ras|las)"
    r"(-time|t)?$"
)
LAS = re.compile(r"l(eft-)?a(nterior-)?s")
FRAME_AXES = ("list", "time")  # NRRD kinds of an axis that counts frames
SPATIAL_AXES = ("", "domain", "space", "???", "none")
NEEDED = "its header states no {}; export it again with its orientation"


@dataclass(frozen=True)
class TextHeader:
    """Fields of a header by lower-case name, and the sizes of the axes of one frame."""

    fields: dict[str, str]
    sizes: tuple[int, ...]
    frames: int


def read_text_header_image(path: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """Samples ``[K, J, I]`` and index to RAS mm of an NRRD or MetaImage file.

    Raises:
        InputError: no such file, truncated, no volume, or without a usable geometry.
    """
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    fields = _nrrd_fields(path) if nrrd else _meta_fields(path)
    header = _layout(
        fields,
        _integers(fields.get("sizes" if nrrd else "dimsize", "")),
        re.findall(r"[^\s\"]+", fields.get("kinds", "").lower()),
    )
    _check_frames(header)
    unit = _check_nrrd(fields) if nrrd else _check_meta(fields)
    frame = chosen_frame(options, [""] * header.frames) if header.frames > 1 else None
    image = image_of(path, frame)
    matrix = _of_las(fields) if nrrd and LAS.match(_space(fields)) else ijk_to_ras(image)
    return sitk.GetArrayFromImage(image), to_mm(matrix, unit)


def _nrrd_fields(path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        if not file.readline(4096).startswith(b"NRRD"):
            raise InputError("this is not an NRRD file; check the name or export it again")
        line = b""
        while (line := file.readline(1 << 16)).strip():  # an empty line ends the header
            text = line.decode("utf-8", "replace").strip()
            if text.startswith("#"):
                continue
            key, found, value = text.partition(":")
            if found:
                fields[key.strip().lower()] = value.removeprefix("=").strip()
    data = fields.get("data file", fields.get("datafile"))
    if data is None and not line:
        raise InputError(TRUNCATED)
    if data is not None and not data.upper().startswith("LIST"):
        first = data.split()
        numbered = len(first) >= 4 and "%" in first[0]
        _check_beside(path, first[0] % int(first[1]) if numbered else data)
    return fields


def _meta_fields(path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while "elementdatafile" not in fields and (line := file.readline(1 << 16)):
            key, found, value = line.decode("utf-8", "replace").partition("=")
            if found:
                fields[key.strip().lower()] = value.strip()
            elif line.strip() and not fields:
                raise InputError("this is not a MetaImage file; check the name or export it again")
    if "elementdatafile" not in fields:
        raise InputError(TRUNCATED)
    data = fields["elementdatafile"]
    if data.upper() not in ("LOCAL", "LIST") and "%" not in data:
        _check_beside(path, data)
    return fields


def _check_beside(header: Path, name: str) -> None:
    if not (header.parent / name).is_file():
        raise InputError(f"its data file {name} is missing; put it beside the header")


def _layout(fields: dict[str, str], sizes: tuple[int, ...], kinds: list[str]) -> TextHeader:
    """Which axes count frames: those the header marks, or the last of a tracked recording."""
    kinds = (kinds + [""] * len(sizes))[: len(sizes)]
    framed = [n for n, kind in enumerate(kinds) if kind in FRAME_AXES]
    spatial = [n for n, kind in enumerate(kinds) if kind in SPATIAL_AXES]
    if not framed and len(spatial) >= 3 and any(key.startswith("seq_frame") for key in fields):
        framed = spatial[-1:]
    elif not framed:
        framed = spatial[3:]
    frames = int(np.prod([sizes[n] for n in framed], dtype=int))
    return TextHeader(fields, tuple(sizes[n] for n in spatial if n not in framed), frames)


def _check_frames(header: TextHeader) -> None:
    """Refuse a recording of 2D frames; a sequence of volumes is for `chosen_frame`."""
    tracked = sorted(
        {
            match[1]
            for key in header.fields
            if (match := re.match(r"seq_frame\d+_(\w+transform)$", key))
        }
    )
    flat = sum(size > 1 for size in header.sizes) < 3
    if header.frames <= 1 and len(header.sizes) < 3:
        raise InputError("a 2D image; a 3D volume is needed")
    if header.frames > 1 and flat:
        raise InputError(
            f"a {'tracked ' if tracked else ''}sequence of {header.frames} 2D frames, "
            "not a volume; make a volume of it with VolumeReconstructor of PLUS, or with Volume "
            "Reconstruction of SlicerIGT, and give that"
        )
    if tracked:
        tell("its frames have transforms of their own, which are not applied")


def _check_nrrd(fields: dict[str, str]) -> str:
    """The unit of length.

    Raises:
        InputError: geometry is missing, singular, or in a space that is not that of a patient.
    """
    vectors = _vectors(fields, "space directions")
    if not vectors:
        raise InputError(NEEDED.format("orientation or spacing ('space directions' is missing)"))
    space = _space(fields)
    if not SPACES.match(space):
        what = f"is {space}" if space else "is missing"
        raise InputError(
            f"its header does not state in which directions its axes point ('space' {what}, "
            "expected left-posterior-superior or right-anterior-superior); export it again"
        )
    _check_axes(vectors)
    units = {unit.strip() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))}
    units.discard("")
    if len(units) > 1:
        raise InputError(f"its axes have different units ({', '.join(sorted(units))})")
    return units.pop() if units else "mm"


def _space(fields: dict[str, str]) -> str:
    return fields.get("space", "").strip().lower()


def _vectors(fields: dict[str, str], name: str) -> list[list[str]]:
    """The components along the three axes of space of each of the first three vectors."""
    vectors = re.findall(r"\(([^)]*)\)", fields.get(name, ""))
    return [vector.split(",")[:3] for vector in vectors[:3]]


def _of_las(fields: dict[str, str]) -> Matrix:
    """Index to RAS of a header in left-anterior-superior: SimpleITK 2.5.2, which Slicer 5.10 has,
    mirrors such an image along the left-right axis instead of the other one."""
    columns = [*_vectors(fields, "space directions"), *_vectors(fields, "space origin")]
    columns = [*columns, ["0", "0", "0"]][:4]  # without an origin it is zero
    if any(len(column) != 3 for column in columns):
        raise InputError(NEEDED.format("orientation or origin in three dimensions"))
    numbers = np.array([[_number(cell) for cell in column] for column in columns]).T
    if not np.isfinite(numbers).all():
        raise InputError(NEEDED.format("origin in numbers"))
    return from_parts(np.diag([-1.0, 1.0, 1.0]) @ numbers[:, :3], [-1, 1, 1] * numbers[:, 3])


def _check_meta(fields: dict[str, str]) -> str:
    """The unit of length.

    Raises:
        InputError: geometry is missing or singular.
    """
    for keys, name in (
        (META_ORIENTATION, "'TransformMatrix'"),
        (META_SPACING, "'ElementSpacing'"),
    ):
        if not any(key in fields for key in keys):
            raise InputError(NEEDED.format(f"orientation or spacing ({name} is missing)"))
    axes = next(fields[key] for key in META_ORIENTATION if key in fields).split()
    rank = round(len(axes) ** 0.5)
    rows = [axes[n * rank : n * rank + 3] for n in range(min(rank, 3))]
    spacing = next(fields[key] for key in META_SPACING if key in fields).split()
    if any(_number(value) == 0 for value in spacing[:3]):
        raise InputError("its voxel spacing is zero; export it again")
    _check_axes(rows)
    unit = fields.get("distanceunits", "mm")
    return "mm" if unit == "?" else unit  # the question mark is MetaIO's word for none


def _check_axes(rows: list[list[str]]) -> None:
    matrix = np.array([[_number(cell) for cell in row] for row in rows if len(row) == 3])
    if matrix.shape != (3, 3):
        return  # SimpleITK finds the damage
    lengths = np.linalg.norm(matrix, axis=1)
    if not np.isfinite(matrix).all() or (lengths == 0).any():
        raise InputError("its voxel spacing is zero or its orientation no number; export it again")
    if abs(np.linalg.det(matrix / lengths[:, None])) < 1e-6:
        raise InputError("its orientation is singular; export it again")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split() if part.isdecimal())
