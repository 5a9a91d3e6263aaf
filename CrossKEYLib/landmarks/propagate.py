"""What the universal embedding is for: the same place found again in another image.

One marked example per landmark is enough, for another patient, another time point or another
contrast: `find_landmarks` takes landmarks of an atlas, or the centre of a lesion seen earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from ..config import LandmarkConfig
from ..descriptors.uae import Embedding
from ..errors import InputError
from ..geometry.transform import (
    Matrix,
    apply,
    from_parts,
    invert,
    nearest_rotation,
    rotation_angle_deg,
)
from ..geometry.volume import Volume
from ..models.described import Described
from ..models.universal import UniversalModel
from .fixed_point import Located, Survey, fixed_point, nearest, survey_images

SETTLED_DEG = 5.0  # images turned by less against each other are seen in one orientation
SPARSE_MM = 4.0  # between the fixed image's places in the first pass, which searches everywhere
Method = Literal["fixed_point", "nearest"]


def find_landmarks(
    from_volume: Volume,
    to_volume: Volume,
    points: torch.Tensor,
    model: UniversalModel | None = None,
    *,
    method: Method = "fixed_point",
    config: LandmarkConfig | None = None,
) -> Located:
    """Find the places of one image in another; of any two patients, times and contrasts.

    Args:
        from_volume: image in which the points are known.
        to_volume: image in which they are sought. Oriented alike to within about 40 degrees, as
            images with a true patient orientation are.
        points: ``[N, 3]`` RAS mm in ``from_volume``: landmarks, or centres of lesions to follow.
        model: the bundled one when missing.
        method: fixed points (arXiv 2311.15111), or the nearest neighbour alone.
        config: weights of the heads and settings of the search.

    Returns:
        ``points [N, 3]`` RAS mm in ``to_volume``, ``scores [N]``, ``spreads [N]`` mm.

    Raises:
        InputError: an image is constant, or a point lies outside of ``from_volume``.
    """
    model, config = model or UniversalModel.load(), config or LandmarkConfig()
    check_inside(from_volume, points)
    return embedded_pair(model.embed(from_volume), to_volume, model, config).locate(points, method)


def embedded_pair(
    here: Embedding,
    to_volume: Volume,
    model: UniversalModel,
    config: LandmarkConfig | None = None,
    there: Embedding | None = None,
) -> EmbeddedPair:
    """Both images embedded in one orientation, whatever the pose of the second.

    Embeddings of a turned image are not those of the image, turned: what the two images tell of
    their pose is used to embed the second anew as it then lies.

    Args:
        here: the image in which points are known.
        to_volume: the image in which they are sought.
        model: embeds it.
        config: ``passes`` is how often the second image is embedded at most.
        there: its embedding as it is, where that is known already.

    Raises:
        InputError: the image is constant.
    """
    config = config or LandmarkConfig()
    pair = EmbeddedPair(here, there or model.embed(to_volume), config)
    for _ in range(config.passes - 1):
        pose = pair.pose()
        if pose is None or rotation_angle_deg(pose) < SETTLED_DEG:
            break
        laid = pose @ pair.T_here_there
        pair = EmbeddedPair(here, model.embed(to_volume.moved(laid)), config, laid)
    return pair


def locate_points(
    here: Embedding,
    there: Embedding,
    points: torch.Tensor,
    *,
    method: Method = "fixed_point",
    config: LandmarkConfig | None = None,
) -> Located:
    """`find_landmarks` between images that are embedded already."""
    return EmbeddedPair(here, there, config or LandmarkConfig()).locate(points, method)


def similarity_map(
    here: Embedding, there: Embedding, point: torch.Tensor, config: LandmarkConfig | None = None
) -> Volume:
    """How similar every place of an image is to one point (RAS mm ``[3]``) of another.

    Returns:
        Mean cosine of the heads, -1 to 1, on the grid of the fine head; 0 outside the image.
    """
    return EmbeddedPair(here, there, config or LandmarkConfig()).similarity_map(point)


@dataclass(frozen=True, eq=False)
class EmbeddedPair:
    """Two embedded images. What does not depend on the points is computed at the first question
    and kept, so that further questions are answered several times faster.

    Attributes:
        here: the image in which points are known.
        there: the image in which they are sought, embedded as ``T_here_there`` lays it.
        T_here_there: rigid, 4x4, RAS mm, from the second image to the first; results are given in
            the second image's own pose.
    """

    here: Embedding
    there: Embedding
    config: LandmarkConfig = field(default_factory=LandmarkConfig)
    T_here_there: Matrix = field(default_factory=lambda: np.eye(4))

    def pose(self) -> Matrix | None:
        """Rigid 4x4 that lays the second image, as it was embedded, on the first; None where the
        images do not tell."""
        coarse = self._survey.coarse
        if coarse is None:
            return None
        onto = coarse.cpu().double().numpy()  # from the first image to the second
        rotation = nearest_rotation(onto)
        middle = self._survey.pairs.here.double().mean(0).cpu().numpy()
        there = onto[:3, :3] @ middle + onto[:3, 3]
        return invert(from_parts(rotation, there - rotation @ middle))

    @cached_property
    def _here(self) -> Described:
        return places(self.here, self.config)

    @cached_property
    def _there(self) -> Described:
        return places(self.there, self.config)

    @cached_property
    def _survey(self) -> Survey:
        settings = self.config.fixed_point
        return survey_images(self._here, self._there, settings, self.here.spacing_mm)

    def locate(self, points: torch.Tensor, method: Method = "fixed_point") -> Located:
        """Find points ``[N, 3]``, RAS mm; see `find_landmarks`."""
        points = points.to(self.here.fine.device, torch.float32)
        described, spacing = vectors(self.here, points, self.config), self.here.spacing_mm
        if method == "nearest":
            found = nearest(points, described, self._here, self._there, spacing)
        elif method == "fixed_point":
            settings = self.config.fixed_point
            found = fixed_point(
                points, described, self._here, self._there, settings, spacing, self._survey
            )
        else:
            raise InputError(f"method {method!r} is unknown; use fixed_point or nearest")
        return found._replace(points=apply(invert(self.T_here_there), found.points))

    def similarity_map(self, point: torch.Tensor) -> Volume:
        """See the function of the same name."""
        point = point.reshape(1, 3).to(self.here.fine.device, torch.float32)
        (wanted,) = vectors(self.here, point, self.config)
        array = torch.zeros(self.there.filled.shape, device=self.there.fine.device)
        array[self.there.filled] = (self._there.descriptors @ wanted).float()
        return Volume(array, self.there.affine(2)).moved(invert(self.T_here_there))


def check_inside(volume: Volume, points: torch.Tensor) -> None:
    """Refuse points that the volume does not show.

    Raises:
        InputError: a point lies outside of the grid.
    """
    ijk = np.asarray(points.cpu(), float) @ volume.ras_to_ijk[:3, :3].T + volume.ras_to_ijk[:3, 3]
    last = np.array(volume.shape[::-1]) - 1
    outside = ((ijk < -0.5) | (ijk > last + 0.5)).any(1)
    if outside.any():
        number = int(outside.argmax())
        shown = ", ".join(f"{x:.1f}" for x in points[number].tolist())
        raise InputError(f"point {number + 1} ({shown}) RAS mm lies outside of its image")


def vectors(embedding: Embedding, points: torch.Tensor, config: LandmarkConfig) -> torch.Tensor:
    """One unit vector ``[N, D]`` for each point; its cosine is the weighted mean of the heads'."""
    weights = torch.tensor([config.fine_weight, config.coarse_weight, config.semantic_weight])
    roots = (weights / weights.sum()).sqrt().tolist()
    heads = zip(embedding.at(points), roots, strict=True)
    return torch.cat([root * head for head, root in heads if root > 0], 1)


def places(embedding: Embedding, config: LandmarkConfig) -> Described:
    """All cells of the fine head within the image, described."""
    kji = embedding.filled.nonzero().float()
    matrix = torch.as_tensor(embedding.affine(2), dtype=torch.float32, device=kji.device)
    points = kji.flip(1) @ matrix[:3, :3].T + matrix[:3, 3]
    parts = [vectors(embedding, part, config) for part in points.split(200_000)]
    return Described(points, torch.cat(parts))


def thinned(table: Described, spacing_mm: float) -> Described:
    """One place per cube of ``spacing_mm``."""
    cubes = torch.floor(table.points / spacing_mm).long()
    cubes = cubes - cubes.amin(0)
    size = cubes.amax(0) + 1
    key = (cubes[:, 0] * size[1] + cubes[:, 1]) * size[2] + cubes[:, 2]
    order = key.argsort(stable=True)
    first = torch.ones(len(key), dtype=torch.bool, device=key.device)
    first[1:] = key[order][1:] != key[order][:-1]
    kept = order[first]
    return Described(table.points[kept], table.descriptors[kept])
