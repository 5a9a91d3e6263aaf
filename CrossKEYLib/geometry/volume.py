"""A 3D image in RAS millimetres: samples ``[K, J, I]`` plus the affine from index to world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np
import torch

from ..errors import InputError
from . import transform
from .filters import gaussian, sample_channels
from .transform import Matrix


@dataclass(frozen=True, eq=False)
class Volume:
    """Samples and geometry of one image.

    Attributes:
        array: float32 ``[K, J, I]``, the order of SimpleITK arrays and of Slicer.
        ijk_to_ras: float64 ``[4, 4]``, maps (i, j, k, 1) to RAS mm. Any orientation, spacing,
            shear or handedness; only a singular matrix is refused.

    Raises:
        InputError: the array is not 3D, or the matrix cannot be inverted.
    """

    array: torch.Tensor
    ijk_to_ras: Matrix

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise InputError(f"expected a 3D volume, got {self.array.ndim} dimensions")
        matrix = np.asarray(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise InputError("the volume's orientation is not a finite 4x4 matrix")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise InputError("the volume's orientation or spacing is singular; export it again")
        object.__setattr__(self, "array", self.array.to(torch.float32))
        object.__setattr__(self, "ijk_to_ras", matrix)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Volume:
        """Read an image file or a DICOM folder; see `formats.volumes.read_volume`."""
        from ..formats.volumes import read_volume  # builds on this file

        return read_volume(path)

    def write(self, path: str | PathLike[str]) -> None:
        """Write in the format of the extension; see `formats.volumes.write_volume`."""
        from ..formats.volumes import write_volume  # builds on this file

        write_volume(self, path)

    @property
    def device(self) -> torch.device:
        return self.array.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I)."""
        k, j, i = self.array.shape
        return k, j, i

    @cached_property
    def ras_to_ijk(self) -> Matrix:
        return transform.invert(self.ijk_to_ras)

    @cached_property
    def spacing_mm(self) -> np.ndarray:
        """Voxel edge lengths along i, j, k."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @cached_property
    def centre_ras(self) -> np.ndarray:
        """World position of the middle of the grid, RAS mm ``[3]``."""
        middle = (np.array(self.shape[::-1]) - 1) / 2
        return self.ijk_to_ras[:3, :3] @ middle + self.ijk_to_ras[:3, 3]

    def corners_ras(self) -> np.ndarray:
        """World positions of the eight outermost voxel centres, ``[8, 3]``."""
        last = np.array(self.shape[::-1]) - 1
        ijk = np.stack(np.meshgrid(*[(0, n) for n in last], indexing="ij"), -1).reshape(-1, 3)
        return ijk @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to(self, device: torch.device | str) -> Volume:
        return Volume(self.array.to(device), self.ijk_to_ras)

    def replaced(self, array: torch.Tensor) -> Volume:
        """Other samples on the same grid."""
        return Volume(array, self.ijk_to_ras)

    def moved(self, matrix: Matrix) -> Volume:
        """The same samples, their world moved by ``matrix`` (4x4, RAS mm); nothing resampled."""
        return Volume(self.array, matrix @ self.ijk_to_ras)

    def points_ras(self, kji: torch.Tensor) -> torch.Tensor:
        """World positions ``[N, 3]`` of array positions ``[N, 3]`` in (k, j, i) order."""
        return transform.apply(self.ijk_to_ras, kji.flip(-1).to(torch.float32))

    def contains(self, points: torch.Tensor, rim_mm: float = 0.0) -> torch.Tensor:
        """Whether RAS points ``[..., 3]`` lie in the box of the samples, ``rim_mm`` or more within
        its faces, or as far beyond them where that is negative; bool ``[...]``."""
        ijk = transform.apply(self.ras_to_ijk, points)
        last = torch.tensor(self.shape[::-1], device=ijk.device) - 1
        rim = torch.as_tensor(rim_mm / self.spacing_mm, dtype=ijk.dtype, device=ijk.device)
        return ((ijk >= rim) & (ijk <= last - rim)).all(-1)

    def sample(self, points: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
        """Interpolate at RAS points ``[..., 3]``; zero outside the grid. Returns ``[...]``."""
        return sample_channels(self.array[None], self.ras_to_ijk, points, mode)[0]

    def smoothed(self, step_mm: float) -> Volume:
        """Blurred so that reading every ``step_mm`` does not alias; itself where none is needed."""
        sigmas = [0.42 * np.sqrt(max(step_mm**2 - s**2, 0)) / s for s in self.spacing_mm[::-1]]
        return self.replaced(gaussian(self.array, sigmas)) if max(sigmas) > 0.05 else self

    def resample(self, grid: Grid, mode: str = "bilinear") -> Volume:
        """Interpolate onto ``grid``; zero outside.

        Interpolation reads single points, so where the grid is coarser than the samples they
        are smoothed first (Gaussian with the missing variance), or fine detail would alias.
        """
        step = np.linalg.norm(grid.ijk_to_ras[:3, :3], axis=0).min()
        smooth = self.smoothed(float(step)) if mode == "bilinear" else self
        return Volume(smooth.sample(grid.points(self.device), mode), grid.ijk_to_ras)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where samples lie: ``shape`` (K, J, I) and ``ijk_to_ras`` (4x4, RAS mm)."""

    shape: tuple[int, int, int]
    ijk_to_ras: Matrix

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        return cls(volume.shape, volume.ijk_to_ras)

    @classmethod
    def along(cls, volume: Volume, spacing_mm: float, margin_mm: float = 0.0) -> Grid:
        """`around` the samples of a volume, along its own axes; where those are sheared, along
        the nearest orthonormal ones."""
        axes = transform.nearest_axes(volume.ijk_to_ras)
        return cls.around(volume.corners_ras(), spacing_mm, margin_mm, axes)

    @classmethod
    def around(
        cls,
        points: np.ndarray,
        spacing_mm: float,
        margin_mm: float = 0.0,
        rotation: np.ndarray | None = None,
        lattice_mm: float | None = None,
    ) -> Grid:
        """Smallest isotropic grid, axes = columns of ``rotation`` (RAS by default), holding
        ``points [N, 3]`` with a margin on every side (mm). With ``lattice_mm`` it begins and
        ends on whole multiples of that, so that grids around other points share its voxels.

        Raises:
            ValueError: the axes are not orthonormal; `along` lays a grid along a sheared volume.
        """
        axes = np.eye(3) if rotation is None else np.asarray(rotation, float)
        if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
            raise ValueError("the axes of an isotropic grid must be orthonormal")
        local = np.asarray(points, float) @ axes
        low, high = local.min(0) - margin_mm, local.max(0) + margin_mm
        if lattice_mm is None:
            size = np.ceil((high - low) / spacing_mm).astype(int) + 1
            start = (low + high - (size - 1) * spacing_mm) / 2
        else:
            start = np.floor(low / lattice_mm) * lattice_mm
            cells = np.ceil((high + spacing_mm - start) / lattice_mm)
            size = np.round(cells * lattice_mm / spacing_mm).astype(int)
        i, j, k = (int(n) for n in size)
        return cls((k, j, i), transform.from_parts(axes * spacing_mm, axes @ start))

    def points(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """RAS position of every voxel, ``[K, J, I, 3]`` float32."""
        axes = [torch.arange(n, dtype=torch.float32, device=device) for n in self.shape]
        m = torch.as_tensor(self.ijk_to_ras, dtype=torch.float32, device=device)
        k, j, i = (a[:, None] * m[:3, 2 - d] for d, a in enumerate(axes))
        return k[:, None, None] + j[None, :, None] + (i + m[:3, 3])[None, None]
