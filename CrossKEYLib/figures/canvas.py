"""Shared parts of all figures: planes through the MRI, samples on them, and a dark style."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from ..formats.atomic import whole
from ..geometry.intensity import rescaled
from ..geometry.transform import Matrix
from ..geometry.volume import Volume

STEP_MM = 0.4  # between the samples of a picture
MARGIN_MM = 8.0  # shown around the field of view
SLAB_MM = 2.5  # a point this near to a plane is drawn on it
MOST_POINTS = 20_000  # used to find a field of view
LEGIBLE = [withStroke(linewidth=2, foreground="black")]  # letters over a bright image
# Blue and orange, light and dark: told apart by every kind of colour vision.
MRI_COLOUR, IUS_COLOUR, OUTLINE, WRONG = "#35c4f0", "#ffb000", "#35c4f0", "#9aa0a6"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "#111417",
    "axes.facecolor": "black",
    "text.color": "#e8eaed",
    "axes.labelcolor": "#e8eaed",
    "axes.edgecolor": "#5f6368",
    "axes3d.xaxis.panecolor": "#1b1f24",
    "axes3d.yaxis.panecolor": "#1b1f24",
    "axes3d.zaxis.panecolor": "#1b1f24",
    "grid.color": "#3c4043",
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


class Pair:
    """MRI and iUS in one pose, both in the MRI's world, and the field of view they are seen in.

    Attributes:
        fixed, moving: scaled to [0, 1]; the iUS moved to where ``matrix`` puts it.
        centre, half_mm: see `field_of_view`.
    """

    def __init__(self, fixed: Volume, moving: Volume, matrix: Matrix | None = None) -> None:
        self.fixed = rescaled(fixed)
        self.moving = rescaled(moving).moved(np.eye(4) if matrix is None else matrix)
        self.centre, self.half_mm = field_of_view(self.moving)

    def samples(
        self, plane: Plane, centre: np.ndarray, half_mm: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """MRI and iUS on ``plane``; see `section`."""
        a, b = (section(v, plane, centre, half_mm) for v in (self.fixed, self.moving))
        return a, b


def field_of_view(volume: Volume) -> tuple[np.ndarray, float]:
    """Middle ``[3]`` (RAS mm) of what is not empty, and half the edge (mm) of a cube around it."""
    world = filled_points(volume)
    centre = world.mean(0)
    return centre, float(np.abs(world - centre).max()) + MARGIN_MM


def filled_points(volume: Volume, above: float = 0.0) -> np.ndarray:
    """RAS mm ``[N, 3]`` of voxels brighter than ``above``, thinned to about `MOST_POINTS`."""
    filled = (volume.array > above).nonzero()
    filled = filled[:: max(1, len(filled) // MOST_POINTS)]
    return volume.points_ras(filled).cpu().double().numpy()


def section(volume: Volume, plane: Plane, centre: np.ndarray, half_mm: float) -> np.ndarray:
    """Samples on ``plane`` through ``centre`` (RAS mm), rows from bottom to top."""
    n = int(np.ceil(2 * half_mm / STEP_MM)) + 1
    offsets = np.linspace(-half_mm, half_mm, n)
    world = (
        centre
        + offsets[:, None, None] * np.array(plane.up)
        + offsets[None, :, None] * np.array(plane.right)
    )
    points = torch.as_tensor(world, dtype=torch.float32, device=volume.device)
    return volume.sample(points).cpu().numpy()


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write as PNG (or as the extension says), whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor=figure.get_facecolor())


@contextmanager
def styled(width: float, height: float) -> Generator[Figure, None, None]:
    """A dark figure, its style confined to the block."""
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
        yield Figure(figsize=(width, height), layout=layout)


def frame(
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


def grey(ax: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """An image scaled to [0, 1]."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent)


def outline(ax: Axes, ius: np.ndarray, extent: tuple[float, float, float, float]) -> None:
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


def colour_bar(figure: Figure, colours: ScalarMappable, axes: list[Axes], label: str) -> None:
    """What the colours beside ``axes`` mean."""
    bar = figure.colorbar(colours, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label(label)
    bar.outline.set_edgecolor("#5f6368")  # type: ignore[reportCallIssue]
