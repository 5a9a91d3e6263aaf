"""Matches between MRI and iUS: on the slice that shows most of them, and in 3D."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D
from scipy.spatial import ConvexHull

from ..geometry import transform
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from .canvas import (
    IUS_COLOUR,
    MARGIN_MM,
    MRI_COLOUR,
    PLANES,
    SLAB_MM,
    WRONG,
    Pair,
    Plane,
    colour_bar,
    filled_points,
    frame,
    grey,
    outline,
    styled,
)

MOST_LINES = 40
MOST_LINES_3D = 120
SHOWN_RESIDUAL_MM = 4.0
RESIDUALS = "autumn_r"
RESIDUAL_LABEL = "distance of the two ends after registration, mm"
TISSUE = 0.1  # of the intensity range; darker is the background of an MRI


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
    view = Pair(fixed, moving, matrix)
    a, b, agree = _ends(matrix, points_fixed, points_moving, inliers)
    plane, centre = _busiest_plane(view, a[agree], b[agree])
    mri, ius = view.samples(plane, centre, view.half_mm)
    place_a, place_b = plane.coordinates(a), plane.coordinates(b)
    away = np.abs(np.stack([place_a, place_b]) - plane.coordinates(centre)).max(0)
    near = (away <= [view.half_mm, view.half_mm, SLAB_MM]).all(1)  # within the picture
    shown = _thinned(np.flatnonzero(near & agree), place_a, MOST_LINES)
    wrong = _thinned(np.flatnonzero(near & ~agree), place_a, MOST_LINES // 3)
    residual = np.linalg.norm(a - b, axis=1)
    colours = _colours()
    with styled(13.0, 7.2) as figure:
        left, right = figure.subplots(1, 2)
        for ax, image, name in ((left, mri, "MRI"), (right, ius, "Ultrasound as registered")):
            extent = frame(ax, plane, centre, view.half_mm)
            grey(ax, image, extent)
            outline(ax, ius, extent)
            ax.set_title(f"{name}, {plane.name.lower()}")
        for n in [*wrong, *shown]:
            colour = colours.to_rgba(residual[n]) if agree[n] else WRONG
            _join((left, right), (place_a[n, :2], place_b[n, :2]), colour, bool(agree[n]))
        colour_bar(figure, colours, [left, right], RESIDUAL_LABEL)
        count = _count(agree)
        where = f"drawn: those within {SLAB_MM:g} mm of this plane"
        figure.suptitle(f"{count}; {where}, others dashed", fontsize=13)
    return figure


def matches_3d(
    fixed: Volume,
    moving: Volume,
    matrix: Matrix | None,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    inliers: torch.Tensor,
) -> Figure:
    """Matches between the hulls of both volumes, seen from the front, in the MRI's world (RAS mm).

    The iUS is registered and then pulled out to its side, so the lines of good matches are level
    and of one length.

    Args:
        fixed, moving: MRI and iUS.
        matrix: ``T_fixed_moving``; None where no transform was found.
        points_fixed, points_moving: ``[K, 3]`` RAS mm, matched row by row.
        inliers: ``[K]`` bool.
    """
    pair = Pair(fixed, moving, matrix)
    a, b, agree = _ends(matrix, points_fixed, points_moving, inliers)
    brain, view = filled_points(pair.fixed, TISSUE), filled_points(pair.moving)
    aside = _aside(brain, view)
    residual = np.linalg.norm(a - b, axis=1)
    shown = _thinned(np.flatnonzero(agree), a, MOST_LINES_3D)
    wrong = _thinned(np.flatnonzero(~agree), a, MOST_LINES_3D // 3)
    colours = _colours()
    with styled(10.4, 6.4) as figure:
        ax: Axes3D = figure.add_subplot(projection="3d", proj_type="ortho", computed_zorder=False)
        _hull(ax, brain, MRI_COLOUR)
        _hull(ax, view + aside, IUS_COLOUR)
        ends = np.stack([a, b + aside], 1)
        for chosen, colour, width, dashes in (
            (wrong, WRONG, 0.6, "--"),
            (shown, colours.to_rgba(residual[shown]), 1.0, "-"),
        ):
            if len(chosen):  # a collection of no lines has no extent
                lines = Line3DCollection(
                    list(ends[chosen]), zorder=3, colors=colour, linewidths=width, linestyles=dashes
                )
                ax.add_collection3d(lines)
        for side, colour in ((0, MRI_COLOUR), (1, IUS_COLOUR)):
            ax.scatter(*ends[shown, side].T, s=8, c=colour, depthshade=False, zorder=4)
        _world_axes(ax, np.concatenate([brain, view + aside]))
        colour_bar(figure, colours, [ax], RESIDUAL_LABEL)
        pulled = f"ultrasound (orange) pulled {np.linalg.norm(aside):.0f} mm out of the MRI (blue)"
        figure.suptitle(f"{_count(agree)}; {pulled}", fontsize=13)
    return figure


def _ends(
    matrix: Matrix | None,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
    inliers: torch.Tensor,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends ``[K, 3]`` of each match in the MRI's world, and which of them agree."""
    matrix = np.eye(4) if matrix is None else matrix
    a = points_fixed.cpu().double().numpy()
    b = transform.apply(matrix, points_moving.cpu().double()).numpy()
    return a, b, inliers.cpu().numpy()


def _count(agree: np.ndarray) -> str:
    return f"{int(agree.sum())} of {len(agree)} matches agree on the transform"


def _colours() -> ScalarMappable:
    return ScalarMappable(Normalize(0, SHOWN_RESIDUAL_MM), RESIDUALS)


def _aside(brain: np.ndarray, view: np.ndarray) -> np.ndarray:
    """By how much (mm ``[3]``) the iUS is pulled to its side of the brain to be clear of it."""
    outside = view.mean(0)[0] > brain.mean(0)[0]
    gap = brain[:, 0].max() - view[:, 0].min() if outside else brain[:, 0].min() - view[:, 0].max()
    return np.array([gap + (1 if outside else -1) * 4 * MARGIN_MM, 0.0, 0.0])


def _hull(ax: Axes3D, points: np.ndarray, colour: str) -> None:
    """What an image covers, as a body that can be seen through."""
    hull = ConvexHull(points)
    faces = points[hull.simplices]
    # The hull's equations point outwards; shading wants the corners in that order.
    turn = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    inwards = (turn * hull.equations[:, :3]).sum(1) < 0
    faces[inwards] = faces[inwards, ::-1]
    ax.add_collection3d(
        Poly3DCollection(list(faces), facecolors=colour, alpha=0.16, shade=True, zorder=1)
    )


def _world_axes(ax: Axes3D, points: np.ndarray) -> None:
    """Equal axes in RAS mm, seen from the front and a little from above."""
    low, high = points.min(0) - MARGIN_MM, points.max(0) + MARGIN_MM
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    ax.set(xlabel="R (mm)", ylabel="A (mm)", zlabel="S (mm)", facecolor="none")
    ax.set_box_aspect(high - low, zoom=1.3)  # type: ignore[reportArgumentType]
    ax.view_init(elev=15, azim=80)


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


def _busiest_plane(view: Pair, a: np.ndarray, b: np.ndarray) -> tuple[Plane, np.ndarray]:
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
