"""Pictures by which a person judges a registration: overlay, matches, keypoints.

All are drawn in the world of the MRI (RAS mm) on axial, coronal and sagittal planes, as a
radiologist sees them: the patient's left is on the right. No global matplotlib state is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke

from . import transform
from .transform import Matrix
from .volume import Volume, rescaled
from .writing import whole

STEP_MM = 0.4  # between the samples of a picture
MARGIN_MM = 8.0  # shown around the field of view
SLAB_MM = 2.5  # a point this near to a plane is drawn on it
FAR_MM = 30.0  # beyond this the planes of the other pose would miss the iUS
MOST_LINES = 40
SHOWN_RESIDUAL_MM = 4.0
LEGIBLE = [withStroke(linewidth=2, foreground="black")]  # letters over a bright image
RESIDUALS = "autumn_r"
MRI_COLOUR, IUS_COLOUR, OUTLINE = "#35c4f0", "#ffb000", "#35c4f0"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "#111417",
    "axes.facecolor": "black",
    "text.color": "#e8eaed",
    "axes.labelcolor": "#e8eaed",
    "axes.edgecolor": "#5f6368",
    "axes.titlesize": 11,
    "xtick.color": "#bdc1c6",
    "ytick.color": "#bdc1c6",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "font.size": 10,
}


@dataclass(frozen=True)
class Plane:
    """A slice: unit vectors to the right and upwards (RAS), and what lies at its edges."""

    name: str
    right: tuple[float, float, float]
    up: tuple[float, float, float]
    edges: str  # left, right, bottom, top

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """(right, up, out of the plane) in mm of RAS points ``[..., 3]``."""
        right, up = np.array(self.right), np.array(self.up)
        return np.stack([points @ right, points @ up, points @ np.cross(right, up)], -1)


PLANES = (
    Plane("Axial", (-1, 0, 0), (0, 1, 0), "RLPA"),
    Plane("Coronal", (-1, 0, 0), (0, 0, 1), "RLIS"),
    Plane("Sagittal", (0, -1, 0), (0, 0, 1), "APIS"),
)


class _View:
    """One pair in one pose: samples on planes through the middle of the field of view."""

    def __init__(self, fixed: Volume, moving: Volume, matrix: Matrix) -> None:
        self.fixed, self.matrix = rescaled(fixed), matrix
        self.moving = rescaled(moving)
        filled = (self.moving.array > 0).nonzero()
        filled = filled[:: max(1, len(filled) // 20_000)]
        world = transform.apply(matrix, self.moving.points_ras(filled)).cpu().double().numpy()
        self.centre = world.mean(0)
        self.half_mm = float(np.abs(world - self.centre).max(0).max()) + MARGIN_MM

    def samples(
        self, plane: Plane, centre: np.ndarray, half_mm: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """MRI and iUS on ``plane`` through ``centre``, rows from bottom to top."""
        n = int(np.ceil(2 * half_mm / STEP_MM)) + 1
        offsets = np.linspace(-half_mm, half_mm, n)
        world = (
            centre
            + offsets[:, None, None] * np.array(plane.up)
            + offsets[None, :, None] * np.array(plane.right)
        )
        points = torch.as_tensor(world, dtype=torch.float32, device=self.fixed.device)
        ius = self.moving.sample(transform.apply(transform.invert(self.matrix), points))
        return self.fixed.sample(points).cpu().numpy(), ius.cpu().numpy()


def overlay(fixed: Volume, moving: Volume, after: Matrix, before: Matrix | None = None) -> Figure:
    """The iUS over the MRI before and after registration, on three planes.

    Args:
        fixed, moving: MRI and iUS.
        after: ``T_fixed_moving``, 4x4, RAS mm.
        before: the same before registration; where the files put the iUS when missing.
    """
    poses = [("Before", np.eye(4) if before is None else before), ("After", after)]
    views = [_View(fixed, moving, matrix) for _, matrix in poses]
    distance = float(np.linalg.norm(views[0].centre - views[1].centre))
    half = views[1].half_mm
    with _styled(12.4, 8.6) as figure:
        axes = figure.subplots(2, 3)
        for row, (title, _), view in zip(axes, poses, views, strict=True):
            # The same anatomy in both rows shows best how the iUS has moved over it.
            centre = view.centre if distance > FAR_MM else views[1].centre
            for ax, plane in zip(row, PLANES, strict=True):
                mri, ius = view.samples(plane, centre, half)
                extent = _extent(ax, plane, centre, half)
                ax.imshow(mri, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
                # Dim tissue is let through, or the MRI could not be judged under it.
                alpha = np.clip(1.5 * ius - 0.2, 0, 0.9)
                ax.imshow(
                    ius, cmap="hot", vmin=0, vmax=0.9, alpha=alpha, origin="lower", extent=extent
                )
                _outline(ax, ius, extent)
                ax.set_title(f"{title}: {plane.name.lower()}")
        figure.suptitle("Ultrasound (warm colours) on MRI (grey)", fontsize=14)
    return figure


def matches(
    fixed: Volume,
    moving: Volume,
    matrix: Matrix | None,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    inliers: torch.Tensor,
) -> Figure:
    """MRI beside iUS on the plane with most inliers, corresponding points joined by lines.

    The iUS is shown as registered, so the lines of good matches are level.

    Args:
        fixed, moving: MRI and iUS.
        matrix: ``T_fixed_moving``; None where no transform was found.
        points_fixed, points_moving: ``[K, 3]`` RAS mm, matched row by row.
        inliers: ``[K]`` bool.
    """
    matrix = np.eye(4) if matrix is None else matrix
    view = _View(fixed, moving, matrix)
    a = points_fixed.cpu().double().numpy()
    b = transform.apply(matrix, points_moving.cpu().double()).numpy()
    agree = inliers.cpu().numpy()
    plane, centre = _busiest_plane(view, a[agree], b[agree])
    mri, ius = view.samples(plane, centre, view.half_mm)
    place_a, place_b = plane.coordinates(a), plane.coordinates(b)
    height = plane.coordinates(centre)[2]
    near = np.maximum(abs(place_a[:, 2] - height), abs(place_b[:, 2] - height)) < SLAB_MM
    shown = _thinned(np.flatnonzero(near & agree), place_a, MOST_LINES)
    wrong = _thinned(np.flatnonzero(near & ~agree), place_a, MOST_LINES // 3)
    residual = np.linalg.norm(a - b, axis=1)
    colours = ScalarMappable(Normalize(0, SHOWN_RESIDUAL_MM), RESIDUALS)
    with _styled(13.0, 7.2) as figure:
        left, right = figure.subplots(1, 2)
        for ax, image, name in ((left, mri, "MRI"), (right, ius, "Ultrasound as registered")):
            extent = _extent(ax, plane, centre, view.half_mm)
            ax.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
            _outline(ax, ius, extent)
            ax.set_title(f"{name}, {plane.name.lower()}")
        for n in [*wrong, *shown]:
            colour = colours.to_rgba(residual[n]) if agree[n] else "#9aa0a6"
            _join((left, right), (place_a[n, :2], place_b[n, :2]), colour, bool(agree[n]))
        bar = figure.colorbar(colours, ax=[left, right], shrink=0.7, pad=0.02)
        bar.set_label("distance of the two ends after registration, mm")
        bar.outline.set_edgecolor("#5f6368")  # type: ignore[reportCallIssue]
        count = f"{int(agree.sum())} of {len(agree)} matches agree on the transform"
        where = f"drawn: those within {SLAB_MM:g} mm of this plane"
        figure.suptitle(f"{count}; {where}, others dashed", fontsize=13)
    return figure


def keypoints(
    fixed: Volume,
    moving: Volume,
    matrix: Matrix | None,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
) -> Figure:
    """Keypoints of both images near three planes; the iUS as registered.

    Args:
        fixed, moving: MRI and iUS.
        matrix: ``T_fixed_moving``; None leaves the iUS where its file puts it.
        points_fixed, points_moving: ``[M, 3]`` and ``[N, 3]``, RAS mm.
    """
    matrix = np.eye(4) if matrix is None else matrix
    view = _View(fixed, moving, matrix)
    sides = (
        ("MRI", points_fixed.cpu().double().numpy(), MRI_COLOUR),
        ("Ultrasound", transform.apply(matrix, points_moving.cpu().double()).numpy(), IUS_COLOUR),
    )
    with _styled(12.4, 8.6) as figure:
        axes = figure.subplots(2, 3)
        for column, plane in zip(axes.T, PLANES, strict=True):
            images = view.samples(plane, view.centre, view.half_mm)
            height = plane.coordinates(view.centre)[2]
            for ax, image, (name, points, colour) in zip(column, images, sides, strict=True):
                extent = _extent(ax, plane, view.centre, view.half_mm)
                ax.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)
                _outline(ax, images[1], extent)
                place = plane.coordinates(points)
                place = place[abs(place[:, 2] - height) < SLAB_MM / 2]
                size = 7 if len(points) < 20_000 else 2  # a dense grid must not hide the image
                ax.scatter(*place.T[:2], s=size, c=colour, linewidths=0, alpha=0.85)
                ax.set_title(f"{name}: {plane.name.lower()}")
        counts = ", ".join(f"{len(points)} in the {name}" for name, points, _ in sides)
        figure.suptitle(
            f"Keypoints: {counts}; shown within {SLAB_MM / 2:g} mm of each plane", fontsize=14
        )
    return figure


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write as PNG (or as the extension says), whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor=figure.get_facecolor())


@contextmanager
def _styled(width: float, height: float) -> Iterator[Figure]:
    """A dark figure, its style confined to the block."""
    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _extent(
    ax: Axes, plane: Plane, centre: np.ndarray, half_mm: float
) -> tuple[float, float, float, float]:
    """Edges of a picture in mm; also labels ``ax`` with directions, scale bar and position."""
    x, y, _ = plane.coordinates(centre)
    ax.set(xticks=[], yticks=[], xlim=(x - half_mm, x + half_mm), ylim=(y - half_mm, y + half_mm))
    for letter, place in zip(
        plane.edges, [(0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98)], strict=True
    ):
        ax.text(
            *place,
            letter,
            transform=ax.transAxes,
            fontsize=9,
            color="#e8eaed",
            path_effects=LEGIBLE,
            ha={0.02: "left", 0.98: "right"}.get(place[0], "center"),
            va={0.02: "bottom", 0.98: "top"}.get(place[1], "center"),
        )
    left, low = x - 0.92 * half_mm, y - 0.90 * half_mm
    ax.plot([left, left + 20], [low, low], color="white", lw=2.5, solid_capstyle="butt")
    ax.text(
        left + 10,
        low + 0.02 * half_mm,
        "20 mm",
        ha="center",
        va="bottom",
        fontsize=8,
        path_effects=LEGIBLE,
    )
    axis = int(np.argmax(np.abs(np.cross(plane.right, plane.up))))
    position = f"{'RAS'[axis]} {centre[axis]:.0f} mm"
    ax.text(
        0.98,
        0.02,
        position,
        transform=ax.transAxes,
        ha="right",
        va="bottom",
        fontsize=8,
        path_effects=LEGIBLE,
    )
    return x - half_mm, x + half_mm, y - half_mm, y + half_mm


def _outline(ax: Axes, ius: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """The rim of the ultrasound's field of view."""
    if (ius > 0).any() and not (ius > 0).all():
        ax.contour(
            (ius > 0).astype(float),
            [0.5],
            colors=OUTLINE,
            linewidths=0.8,
            extent=extent,
            origin="lower",
        )


def _join(
    axes: tuple[Axes, Axes], ends: tuple[np.ndarray, np.ndarray], colour: Any, agrees: bool
) -> None:
    """A match: a dot in each picture and a line between them, thin and dashed if it is wrong."""
    line = ConnectionPatch(
        tuple(ends[0]),
        tuple(ends[1]),
        "data",
        "data",
        axesA=axes[0],
        axesB=axes[1],
        color=colour,
        lw=1.1 if agrees else 0.6,
        alpha=0.9 if agrees else 0.45,
        linestyle="-" if agrees else "--",
    )
    axes[0].figure.add_artist(line)
    for ax, end in zip(axes, ends, strict=True):
        ax.plot(*end, "o", ms=4 if agrees else 2.5, color=colour, mew=0)


def _busiest_plane(view: _View, a: np.ndarray, b: np.ndarray) -> tuple[Plane, np.ndarray]:
    """Among planes every 2 mm through the field of view, the one nearest to most matches."""
    best, found = -1, (PLANES[0], view.centre)
    for plane in PLANES:
        heights = [plane.coordinates(points)[:, 2] for points in (a, b)]
        normal = np.cross(plane.right, plane.up)
        for offset in np.arange(-view.half_mm + MARGIN_MM, view.half_mm - MARGIN_MM, 2.0):
            centre = view.centre + offset * normal
            away = [abs(h - plane.coordinates(centre)[2]) for h in heights]
            count = int((np.maximum(*away) < SLAB_MM).sum())
            if count > best:
                best, found = count, (plane, centre)
    return found


def _thinned(chosen: np.ndarray, places: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of the indices, spread from bottom to top of the picture."""
    if len(chosen) <= most:
        return chosen
    order = chosen[np.argsort(places[chosen, 1])]
    return order[np.linspace(0, len(order) - 1, most).round().astype(int)]
