"""What image headers say and SimpleITK keeps quiet about.

SimpleITK fills a truncated NIfTI file and its NaN samples with zeros, replaces a zero spacing by
1 mm and a missing orientation by the identity, and refuses shear that the header states exactly.
A registration must not rest on any of these, so the headers are read here as well.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..geometry import transform
from ..geometry.transform import Matrix

TRUNCATED = "the file is truncated; copy or export it again"

# Keys of text headers; one of each group must be there
NRRD_GEOMETRY = [("space directions",)]
META_GEOMETRY = [
    ("TransformMatrix", "Rotation", "Orientation"),
    ("ElementSpacing", "ElementSize"),
]

_FIELDS = [
    "dim",
    "kind",
    "bitpix",
    "pixdim",
    "offset",
    "qform",
    "sform",
    "quatern",
    "shift",
    "srow",
]
_FLOATS = {16: "f4", 64: "f8"}  # sample types, by their NIfTI code, that can hold NaN
# Byte layout of the fields above in the two NIfTI versions, keyed by header size
_LAYOUTS = {
    348: (
        ["8i2", "i2", "i2", "8f4", "f4", "i2", "i2", "3f4", "3f4", "(3,4)f4"],
        [40, 70, 72, 76, 108, 252, 254, 256, 268, 280],
    ),
    540: (
        ["8i8", "i2", "i2", "8f8", "i8", "i4", "i4", "3f8", "3f8", "(3,4)f8"],
        [16, 12, 14, 104, 168, 344, 348, 352, 376, 400],
    ),
}


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI-1 or NIfTI-2 header says about geometry; matrices are index to RAS mm."""

    spacing: np.ndarray
    samples: int
    data_end: int  # bytes up to the end of the samples
    sform: Matrix | None
    qform: Matrix | None

    def ijk_to_ras(self, chosen: Matrix) -> Matrix:
        """The orientation exactly as stored.

        Where the file states two, the one that ITK chose (``chosen``) counts, because Slicer
        places the image by it.

        Raises:
            InputError: none is stated, or it contradicts the spacing.
        """
        stated = [m for m in (self.sform, self.qform) if m is not None]
        if not stated:
            raise InputError(
                "the header states no orientation (sform_code and qform_code are 0); "
                "export it again with its orientation"
            )
        matrix = min(stated, key=lambda m: float(np.abs(m - chosen).max()))
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise InputError("its orientation is singular; export it again")
        if not np.allclose(np.linalg.norm(matrix[:3, :3], axis=0), self.spacing, rtol=0.01):
            raise InputError("its spacing contradicts its orientation; export it again")
        return matrix


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or an unpacked temporary copy of a ``.gz`` file.

    ITK overlooks the end of a truncated ``x.nii.gz`` and reads ``x.nii`` in its place where that
    exists, so it only ever sees the copy.

    Raises:
        InputError: the compressed data are truncated or damaged.
    """
    if path.suffix.lower() != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="crosskey-") as folder:
        copy = Path(folder) / "volume.nii"
        try:
            with gzip.open(path) as packed, open(copy, "wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        except EOFError:
            raise InputError(TRUNCATED) from None
        except (gzip.BadGzipFile, zlib.error):
            raise InputError("the compressed data are damaged; copy or export it again") from None
        yield copy


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of an uncompressed NIfTI file and check the file against it.

    Raises:
        InputError: no NIfTI file, truncated, a spacing of zero, or samples that are NaN.
    """
    with open(path, "rb") as file:
        raw = file.read(540)
    for order in ("<", ">"):
        size = int(np.frombuffer(raw[:4].ljust(4, b"\0"), order + "i4")[0])
        if size in _LAYOUTS:
            break
    else:
        raise InputError("this is not a NIfTI file; check the name or export it again")
    if len(raw) < size:
        raise InputError(TRUNCATED)
    formats, offsets = _LAYOUTS[size]
    layout = np.dtype({"names": _FIELDS, "formats": formats, "offsets": offsets, "itemsize": size})
    record = np.frombuffer(raw[:size], layout.newbyteorder(order))[0]
    header = _interpreted(record)
    if path.stat().st_size < header.data_end:
        raise InputError(TRUNCATED)
    if kind := _FLOATS.get(int(record["kind"])):
        check_finite(np.memmap(path, order + kind, "r", int(record["offset"]), header.samples))
    return header


def check_finite(samples: np.ndarray) -> None:
    """Refuse NaN and infinite samples.

    Raises:
        InputError: there are some.
    """
    bad = samples.size - np.count_nonzero(np.isfinite(samples))
    if bad:
        raise InputError(f"{bad} voxels are NaN or infinite; replace them and export it again")


def _interpreted(record: Any) -> NiftiHeader:
    rank = int(record["dim"][0])
    if not 1 <= rank <= 7 or (record["dim"][1 : rank + 1] < 1).any():
        raise InputError("the header is damaged (impossible dimensions); export it again")
    spacing = np.abs(record["pixdim"][1:4].astype(float))
    if not (np.isfinite(spacing).all() and (spacing[:rank] > 0).all()):
        raise InputError(f"its voxel spacing is {_mm(spacing)}; export it again")
    samples = int(np.prod(record["dim"][1 : rank + 1].astype(np.int64)))
    qform = None
    if record["qform"] > 0:
        x, y, z = record["quatern"].astype(float)
        w = np.sqrt(max(0.0, 1 - x * x - y * y - z * z))
        # pixdim[0] holds the handedness; 0 counts as 1 (NIfTI-1 standard, method 2)
        signs = [1, 1, -1 if record["pixdim"][0] < 0 else 1]
        axes = Rotation.from_quat([x, y, z, w]).as_matrix() * (spacing * signs)
        qform = transform.from_parts(axes, record["shift"])
    sform = None
    if record["sform"] > 0:
        sform = transform.from_parts(record["srow"][:, :3], record["srow"][:, 3])
    end = int(record["offset"]) + samples * int(record["bitpix"]) // 8
    return NiftiHeader(spacing, samples, end, sform, qform)


def check_text_header(path: Path) -> None:
    """Refuse NRRD and MetaImage files that state no orientation or spacing.

    Raises:
        InputError: no ``space directions`` (NRRD), ``TransformMatrix`` or ``ElementSpacing``
            (MetaImage), or the file ends within the header.
    """
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    keys = set()
    with open(path, "rb") as file:
        # An empty line ends the header of NRRD, this key that of MetaImage
        while "elementdatafile" not in keys and (line := file.readline(4096)).strip():
            keys.add(line.split(b":" if nrrd else b"=")[0].strip().lower().decode("latin-1"))
    if not ("elementdatafile" in keys or line or path.suffix.lower() == ".nhdr"):
        raise InputError(TRUNCATED)
    for names in NRRD_GEOMETRY if nrrd else META_GEOMETRY:
        if not keys & {name.lower() for name in names}:
            raise InputError(
                f"the header states no orientation or spacing ({names[0]!r} is missing); "
                "export it again with its orientation"
            )


def check_spacing(spacing: np.ndarray) -> None:
    """Refuse voxel edge lengths (mm) that no scanner makes.

    Raises:
        InputError: an edge under 0.01 mm or over 20 mm.
    """
    if not ((spacing >= 0.01) & (spacing <= 20)).all():
        raise InputError(
            f"its voxel spacing is {_mm(spacing)}, expected 0.01 to 20 mm; export it again in mm"
        )


def _mm(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in spacing) + " mm"
