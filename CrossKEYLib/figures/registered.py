"""The pair before and after registration: overlay and checkerboard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from .canvas import PLANES, Pair, Plane, frame, grey, outline, styled

FAR_MM = 30.0  # beyond this the planes of the other pose would miss the iUS
TILE_MM = 10.0
IUS_COLOURS = "hot"

Extent = tuple[float, float, float, float]
Layer = Callable[[np.ndarray, Extent], np.ndarray]  # how much of the iUS covers the MRI, 0 to 1


def overlay(fixed: Volume, moving: Volume, after: Matrix, before: Matrix | None = None) -> Figure:
    """The iUS over the MRI before and after registration, on three planes.

    Args:
        fixed, moving: MRI and iUS.
        after: ``T_fixed_moving``, 4x4, RAS mm.
        before: the same before registration; where the files put the iUS when missing.
    """
    # Dim tissue is transparent, so that the MRI below remains visible.
    title = "Ultrasound (warm colours) on MRI (grey)"
    return _before_and_after(
        fixed, moving, after, before, title, lambda ius, _: np.clip(1.5 * ius - 0.2, 0, 0.9)
    )


def checkerboard(
    fixed: Volume, moving: Volume, after: Matrix, before: Matrix | None = None
) -> Figure:
    """MRI and iUS in alternate fields before and after registration, on three planes.

    If the registration is right, sulci and ventricles continue from field to field.

    Args:
        fixed, moving: MRI and iUS.
        after: ``T_fixed_moving``, 4x4, RAS mm.
        before: the same before registration; where the files put the iUS when missing.
    """

    def fields(ius: np.ndarray, extent: Extent) -> np.ndarray:
        left, right, low, high = extent
        columns = np.floor(np.linspace(left, right, ius.shape[1]) / TILE_MM)
        rows = np.floor(np.linspace(low, high, ius.shape[0]) / TILE_MM)
        return ((rows[:, None] + columns) % 2 == 0) & (ius > 0)

    title = f"Ultrasound (warm colours) and MRI (grey) in fields of {TILE_MM:g} mm"
    return _before_and_after(fixed, moving, after, before, title, fields)


def _before_and_after(
    fixed: Volume,
    moving: Volume,
    after: Matrix,
    before: Matrix | None,
    title: str,
    layer: Layer,
) -> Figure:
    pairs = {"Before": Pair(fixed, moving, before), "After": Pair(fixed, moving, after)}
    first, last = pairs.values()
    far = float(np.linalg.norm(first.centre - last.centre)) > FAR_MM
    with styled(12.4, 8.6) as figure:
        axes = figure.subplots(2, 3)
        for row, (time, pair) in zip(axes, pairs.items(), strict=True):
            # The same anatomy in both rows shows best how the iUS has moved over it.
            centre = pair.centre if far else last.centre
            for ax, plane in zip(row, PLANES, strict=True):
                _draw(ax, pair, plane, centre, last.half_mm, layer)
                ax.set_title(f"{time}: {plane.name.lower()}")
        figure.suptitle(title, fontsize=14)
    return figure


def _draw(
    ax: Axes, pair: Pair, plane: Plane, centre: np.ndarray, half_mm: float, layer: Layer
) -> None:
    mri, ius = pair.samples(plane, centre, half_mm)
    extent = frame(ax, plane, centre, half_mm)
    grey(ax, mri, extent)
    alpha = layer(ius, extent).astype(float)
    ax.imshow(ius, cmap=IUS_COLOURS, vmin=0, vmax=0.9, alpha=alpha, origin="lower", extent=extent)
    outline(ax, ius, extent)
