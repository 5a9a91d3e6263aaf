"""Images, and positions in them: keypoints, heatmap, similarity to a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..geometry import transform
from ..geometry.intensity import rescaled
from ..geometry.transform import Matrix
from ..geometry.volume import Volume
from .canvas import (
    IUS_COLOUR,
    MRI_COLOUR,
    PLANES,
    SLAB_MM,
    Pair,
    Plane,
    colour_bar,
    field_of_view,
    frame,
    grey,
    outline,
    section,
    styled,
)

FIELD_COLOURS = "inferno"  # grows in lightness throughout, so it reads in grey too
DIMMED = 0.55  # image below the colours
OPAQUE_FROM = 2.5  # so many times the share of the range: colours above 0.4 of it cover the image
CROSS = {"s": 90, "marker": "+", "c": "white", "linewidths": 1.8}


def slices(volumes: Mapping[str, Volume], around: Volume | None = None) -> Figure:
    """Images by name, one row each, on three planes through the middle of their content.

    Args:
        volumes: each in its own world (RAS mm).
        around: all are shown where this one lies, for images that share a world.
    """
    with styled(12.4, 4.2 * len(volumes) + 0.2) as figure:
        axes = figure.subplots(len(volumes), 3, squeeze=False)
        for row, (name, volume) in zip(axes, volumes.items(), strict=True):
            image = rescaled(volume)
            centre, half = field_of_view(image if around is None else rescaled(around))
            for ax, plane in zip(row, PLANES, strict=True):
                grey(ax, section(image, plane, centre, half), frame(ax, plane, centre, half))
                ax.set_title(f"{name}: {plane.name.lower()}")
    return figure


def keypoints(
    fixed: Volume,
    moving: Volume,
    matrix: Matrix | None,
    points_fixed: torch.Tensor,
    points_moving: torch.Tensor,
) -> Figure:
    """Points of both images near three planes; the iUS as registered.

    Args:
        fixed, moving: MRI and iUS.
        matrix: ``T_fixed_moving``; None leaves the iUS where its file puts it.
        points_fixed, points_moving: ``[M, 3]`` and ``[N, 3]``, RAS mm.
    """
    matrix = np.eye(4) if matrix is None else matrix
    view = Pair(fixed, moving, matrix)
    sides = (
        ("MRI", points_fixed.cpu().double().numpy(), MRI_COLOUR),
        ("Ultrasound", transform.apply(matrix, points_moving.cpu().double()).numpy(), IUS_COLOUR),
    )
    with styled(12.4, 8.6) as figure:
        axes = figure.subplots(2, 3)
        for column, plane in zip(axes.T, PLANES, strict=True):
            images = view.samples(plane, view.centre, view.half_mm)
            height = plane.coordinates(view.centre)[2]
            for ax, image, (name, points, colour) in zip(column, images, sides, strict=True):
                extent = frame(ax, plane, view.centre, view.half_mm)
                grey(ax, image, extent)
                outline(ax, images[1], extent)
                place = plane.coordinates(points)
                place = place[abs(place[:, 2] - height) < SLAB_MM / 2]
                size = np.clip(28_000 / max(1, len(points)), 2, 22)  # many must not hide the image
                ax.scatter(*place.T[:2], s=size, c=colour, linewidths=0, alpha=0.85)
                ax.set_title(f"{name}: {plane.name.lower()}")
        counts = ", ".join(f"{len(points)} in the {name}" for name, points, _ in sides)
        figure.suptitle(
            f"Points: {counts}; shown within {SLAB_MM / 2:g} mm of each plane", fontsize=14
        )
    return figure


def heatmap(image: Volume, heat: Volume, points: torch.Tensor) -> Figure:
    """Probability of a keypoint at each position, over the image, on three planes.

    Args:
        image: MRI.
        heat: values in [0, 1], on any grid in the same world; see `heatmap.heatmap`.
        points: ``[N, 3]`` RAS mm, keypoints; drawn where they lie near a plane.
    """
    image = rescaled(image)
    centre, half = field_of_view(image)
    with styled(12.4, 4.9) as figure:
        axes = figure.subplots(1, 3)
        colours = ScalarMappable(Normalize(0, 1), FIELD_COLOURS)
        for ax, plane in zip(axes, PLANES, strict=True):
            _coloured(ax, plane, image, heat, centre, half, colours)
            _mark(ax, plane, centre, points, s=6, c=MRI_COLOUR, linewidths=0)
        colour_bar(figure, colours, list(axes), "keypoint heatmap, 1 at its peak")
        near = f"dots: those within {SLAB_MM:g} mm of the plane"
        figure.suptitle(f"{len(points)} keypoints and their heatmap; {near}", fontsize=14)
    return figure


def similarity(image: Volume, similarity: Volume, truth: torch.Tensor) -> Figure:
    """Similarity of every position of an image to one point of the other, on planes through the
    most similar position.

    Args:
        image: MRI.
        similarity: cosines, -1 to 1, on any grid in the same world, 0 where there is none; see
            `estimation.DescriptorGrid.similarity`.
        truth: ``[3]`` RAS mm, the true place of that point in ``image``.
    """
    image = rescaled(image)
    middle, half = field_of_view(image)
    known = similarity.array[similarity.array != 0]
    highest = (similarity.array == known.amax()).nonzero()[:1]
    best = similarity.points_ras(highest)[0].cpu()
    truth = truth.cpu().to(best.dtype)
    # Half of all places are less similar than this; coloured too, they would hide the image.
    colours = ScalarMappable(Normalize(float(known.median()), float(known.amax())), FIELD_COLOURS)
    with styled(12.4, 5.1) as figure:
        axes = figure.subplots(1, 3)
        for ax, plane in zip(axes, PLANES, strict=True):
            normal = np.cross(plane.right, plane.up)
            centre = middle + normal * (normal @ (best.double().numpy() - middle))
            _coloured(ax, plane, image, similarity, centre, half, colours)
            ring = {"s": 160, "facecolors": "none", "edgecolors": MRI_COLOUR, "linewidths": 1.8}
            _mark(ax, plane, centre, best[None], label="most similar place", **ring)
            _mark(ax, plane, centre, truth[None], label="true place", **CROSS)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        colour_bar(figure, colours, list(axes), "cosine similarity")
        apart = float((best - truth).norm())
        found = f"the most similar place is {apart:.1f} mm from the true one"
        figure.suptitle(f"One point of the ultrasound, sought in the MRI: {found}", fontsize=14)
    return figure


def _coloured(
    ax: Axes,
    plane: Plane,
    image: Volume,
    values: Volume,
    centre: np.ndarray,
    half_mm: float,
    colours: ScalarMappable,
) -> None:
    """``values`` over a scaled image, the more opaque the higher they are; the image is dimmed."""
    extent = frame(ax, plane, centre, half_mm)
    grey(ax, DIMMED * section(image, plane, centre, half_mm), extent)
    shown = section(values, plane, centre, half_mm)
    alpha = np.clip(OPAQUE_FROM * np.asarray(colours.norm(shown)), 0, 1)
    low, high = colours.get_clim()
    ax.imshow(
        shown,
        cmap=colours.cmap,
        vmin=low,
        vmax=high,
        alpha=alpha,
        origin="lower",
        extent=extent,
    )
    ax.set_title(plane.name)


def _mark(ax: Axes, plane: Plane, centre: np.ndarray, points: torch.Tensor, **look: Any) -> None:
    """Those of the points ``[N, 3]`` (RAS mm) that lie near the plane through ``centre``."""
    place = plane.coordinates(points.cpu().double().numpy())
    near = abs(place[:, 2] - plane.coordinates(centre)[2]) < SLAB_MM
    ax.scatter(*place[near, :2].T, **look)
