"""NIfTI files: header by nibabel, geometry exactly as stored.

SimpleITK fills a truncated NIfTI file and its NaN samples with zeros, replaces a spacing of zero by
1 mm and a missing orientation by the identity, ignores units, and refuses shear that the header
states exactly. A registration must not rest on any of these.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nibabel import Nifti1Header, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from ..errors import InputError
from ..geometry.transform import Matrix
from .itk import TRUNCATED
from .options import ReadOptions, chosen_frame, tell
from .transforms import LPS_RAS, quiet
from .units import to_mm

GZIP = b"\x1f\x8b"
HEADERS = {348: Nifti1Header, 540: Nifti2Header}
ROUNDING_MM = 0.05  # a qform in float32 may be that far from the sform it was made from
DISAGREEMENT_MM = 1.0  # between two orientations, at a corner of the image


def read_nifti(path: Path, options: ReadOptions) -> tuple[np.ndarray, Matrix]:
    """Samples ``[K, J, I]`` and index to RAS mm of a NIfTI-1 or NIfTI-2 file, packed or plain.

    Raises:
        InputError: no NIfTI file, truncated, damaged, or without a usable geometry.
    """
    data = _unpacked(path)
    header = _header(data)
    shape = _shape(header)
    try:
        end = header.get_data_offset() + int(np.prod(shape)) * header.get_data_dtype().itemsize
    except KeyError:  # nibabel looks the code up in a table
        raise InputError("its sample type is unknown; export it again") from None
    if len(data) < end:
        raise InputError(TRUNCATED)
    _check_type(header, shape)
    matrix = to_mm(_ijk_to_world(header, shape, options), _unit(header))
    samples = np.asarray(header.data_from_fileobj(io.BytesIO(data)))
    volumes = samples.reshape(*samples.shape[:3], -1, order="F")
    frames = volumes.shape[3]
    frame = chosen_frame(options, [""] * frames) if frames > 1 else 0
    return volumes[..., frame].T, matrix


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(GZIP):
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise InputError(TRUNCATED) from None
    except (gzip.BadGzipFile, zlib.error):
        raise InputError("the compressed data are damaged; copy or export it again") from None


def _header(data: bytes) -> Nifti1Header:
    """The header as it stands: nibabel's checks would correct a spacing of zero in silence."""
    for order in ("<", ">"):
        size = int(np.frombuffer(data[:4].ljust(4, b"\0"), order + "i4")[0])
        if size in HEADERS:
            break
    else:
        raise InputError("this is not a NIfTI file; check the name or export it again")
    if len(data) < size:
        raise InputError(TRUNCATED)
    return HEADERS[size](data[:size], endianness=order, check=False)


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    dim = header["dim"].astype(np.int64)
    rank = int(dim[0])
    if not 1 <= rank <= 7 or (dim[1 : rank + 1] < 1).any():
        raise InputError("the header is damaged (impossible dimensions); export it again")
    if rank < 3:
        raise InputError("a 2D image; a 3D volume is needed")
    return tuple(dim[1 : rank + 1].tolist())


def _check_type(header: Nifti1Header, shape: tuple[int, ...]) -> None:
    kind = header.get_data_dtype()
    values = len(kind.names) if kind.names else int(np.prod(shape[4:]))
    if values > 1:
        raise InputError(f"{values} values per voxel (colour or vectors); export a grey volume")
    if kind.kind == "c":
        raise InputError("complex values; export the magnitude image")


def _unit(header: Nifti1Header) -> str:
    code = int(header["xyzt_units"]) & 7
    named = {0: "mm", 1: "meter", 2: "mm", 3: "micron"}  # 0: not stated
    return named.get(code, f"units of code {code}")


def _ijk_to_world(header: Nifti1Header, shape: tuple[int, ...], options: ReadOptions) -> Matrix:
    """The orientation exactly as stored, in the unit of the header.

    Where the file states two that differ, the one that ITK takes counts, because Slicer places the
    image by it, unless ``options`` chooses.

    Raises:
        InputError: none is stated, or it contradicts the spacing.
    """
    spacing = np.abs(header["pixdim"][1:4].astype(float))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        shown = " x ".join(f"{value:g}" for value in spacing)
        raise InputError(f"its voxel spacing is {shown} mm; export it again")
    stated = {"sform": _sform(header), "qform": _qform(header)}
    stated = {name: matrix for name, matrix in stated.items() if matrix is not None}
    if not stated:
        raise InputError(
            "the header states no orientation (sform_code and qform_code are 0); "
            "export it again with its orientation"
        )
    name, matrix = next(iter(stated.items()))
    if len(stated) == 2:
        name = _preferred(stated, header, shape, options)
        matrix = stated[name]
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-30:
        raise InputError("its orientation is singular; export it again")
    if not np.allclose(np.linalg.norm(matrix[:3, :3], axis=0), spacing, rtol=0.01):
        raise InputError("its spacing contradicts its orientation; export it again")
    return matrix


def _sform(header: Nifti1Header) -> Matrix | None:
    return np.asarray(header.get_sform()) if int(header["sform_code"]) > 0 else None


def _qform(header: Nifti1Header) -> Matrix | None:
    if int(header["qform_code"]) <= 0:
        return None
    try:
        with np.errstate(invalid="ignore"):
            return np.asarray(header.get_qform())
    except (HeaderDataError, ValueError):  # no unit quaternion
        return np.full((4, 4), np.nan)


def _preferred(
    stated: dict[str, Matrix], header: Nifti1Header, shape: tuple[int, ...], options: ReadOptions
) -> str:
    """ "sform" or "qform"; a warning where they place the image differently."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, -1)
    unit = {"meter": 1e3, "micron": 1e-3}.get(_unit(header), 1.0)
    ends = [m[:3, :3] @ corners + m[:3, 3:] for m in stated.values()]
    apart = unit * float(np.linalg.norm(ends[0] - ends[1], axis=0).max())
    if apart <= ROUNDING_MM:
        return "sform"
    if options.orientation is None or apart <= DISAGREEMENT_MM:
        chosen = _as_itk(stated, header)
    else:
        chosen = options.orientation
    if not apart <= DISAGREEMENT_MM:
        by = "as 3D Slicer does" if options.orientation is None else "as asked"
        tell(
            f"its sform and qform place the image differently (up to {apart:.1f} mm); the {chosen} "
            f"is used, {by}; the other one by --orientation"
        )
    return chosen


def _as_itk(stated: dict[str, Matrix], header: Nifti1Header) -> str:
    """Which of the two ITK takes, asked of ITK itself, as its rule differs between versions."""
    reader = sitk.ImageFileReader()
    with tempfile.TemporaryDirectory(prefix="crosskey-") as folder:
        probe = Path(folder) / "header.nii"
        with open(probe, "wb") as file:
            header.write_to(file)
            file.write(b"\0" * 4)
        reader.SetFileName(str(probe))
        try:
            with quiet():
                reader.ReadImageInformation()
        except RuntimeError:
            return "sform"
    dimension = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    taken = np.eye(4)
    taken[:3, :3] = direction * reader.GetSpacing()[:3]
    taken[:3, 3] = reader.GetOrigin()[:3]
    taken = LPS_RAS @ taken
    return min(stated, key=lambda name: float(np.abs(stated[name] - taken).max()))
