"""What the universal embedding is for: the same place found again in another image.

One marked example per landmark is enough, for another patient, another time point or another
contrast: `find_landmarks` takes landmarks of an atlas, or the centre of a lesion seen earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from ..config import LandmarkConfig, LandmarkMethod
from ..descriptors.uae import Embedding
from ..errors import InputError
from ..geometry.transform import Matrix, apply, invert, rotation_angle_deg
from ..geometry.volume import Volume
from ..models.described import Described
from ..models.universal import UniversalModel
from .fixed_point import Survey, fixed_point, nearest, survey_images
from .found import Found, Landmarks, Why, judged
from .orientation_search import coarse_pose
from .places import places, vectors
from .pose import Pose, told_by
from .structure import structure_margin

SETTLED_DEG = 5.0  # images turned by less against each other are seen in one orientation
WAY_BACK = 1.5  # of the distance between seeds; the survey back only has to confirm


def find_landmarks(
    from_volume: Volume,
    to_volume: Volume,
    points: torch.Tensor,
    model: UniversalModel | None = None,
    *,
    method: LandmarkMethod = "fixed_point",
    config: LandmarkConfig | None = None,
) -> Landmarks:
    """Find the places of one image in another; of any two patients, times and contrasts.

    Args:
        from_volume: image in which the points are known.
        to_volume: image in which they are sought. Oriented alike to within about 30 degrees; other
            orientations are searched (docs/landmarks.md).
        points: ``[N, 3]`` RAS mm in ``from_volume``: landmarks, or centres of lesions to follow.
        model: the bundled one when missing.
        method: fixed points (arXiv 2311.15111), or the nearest neighbour alone.
        config: weights of the heads and settings of the search.

    Returns:
        The points in ``to_volume``, a word on each of them, and the pose of the images.

    Raises:
        InputError: an image is constant, or a point lies outside of ``from_volume``.
    """
    model, config = model or UniversalModel.load(), config or LandmarkConfig()
    check_inside(from_volume, points)
    return embedded_pair(from_volume, to_volume, model, config).locate(points, method)


def embedded_pair(
    from_volume: Volume,
    to_volume: Volume,
    model: UniversalModel,
    config: LandmarkConfig | None = None,
    *,
    here: Embedding | None = None,
    there: Embedding | None = None,
) -> EmbeddedPair:
    """Both images embedded in one orientation, whatever the pose of the second.

    Embeddings of a turned image are not those of the image, turned: what the two images tell of
    their pose is used to embed the second anew as it then lies. Where they do not tell it clearly,
    all orientations are tried on a coarse view.

    Args:
        from_volume: the image in which points are known.
        to_volume: the image in which they are sought.
        model: embeds them.
        config: ``passes`` is how often the second image is embedded at most, not counting what is
            needed to find its orientation.
        here, there: their embeddings as they are, where those are known already.

    Raises:
        InputError: an image is constant.
    """
    config = config or LandmarkConfig()
    here, images = here or model.embed(from_volume), (from_volume, to_volume)
    pair = EmbeddedPair(here, there or model.embed(to_volume), config, images=images)
    if config.passes > 1 and config.orientations and not pair.pose:
        laid = coarse_pose(from_volume, to_volume, model, config)
        if laid is not None:
            turned = model.embed(to_volume.moved(laid))
            other = EmbeddedPair(here, turned, config, laid, images)
            pair = max(pair, other, key=lambda one: one.pose.support)
    for _ in range(config.passes - 1):
        laid = pair.pose.matrix
        if laid is None or rotation_angle_deg(laid @ invert(pair.T_here_there)) < SETTLED_DEG:
            break
        pair = EmbeddedPair(here, model.embed(to_volume.moved(laid)), config, laid, images)
    return pair


def locate_points(
    here: Embedding,
    there: Embedding,
    points: torch.Tensor,
    *,
    method: LandmarkMethod = "fixed_point",
    config: LandmarkConfig | None = None,
) -> Landmarks:
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
        images: both as they were given, which confirm the pose; None where they are not at hand.
    """

    here: Embedding
    there: Embedding
    config: LandmarkConfig = field(default_factory=LandmarkConfig)
    T_here_there: Matrix = field(default_factory=lambda: np.eye(4))
    images: tuple[Volume, Volume] | None = None

    @cached_property
    def pose(self) -> Pose:
        """Of the second image, as it was given, to the first."""
        settings = self.config.fixed_point
        fewer = replace(settings, survey_mm=WAY_BACK * settings.survey_mm)
        back = survey_images(self._there, self._here, fewer, self.here.spacing_mm)
        pose = told_by(self._survey, back, self.T_here_there, settings.min_similarity)
        if self.images is None or pose.matrix is None:
            return pose
        return replace(pose, structure_margin=structure_margin(*self.images, pose.matrix))

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

    def locate(self, points: torch.Tensor, method: LandmarkMethod = "fixed_point") -> Landmarks:
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
        places_given = apply(invert(self.T_here_there), found.points)
        told = judged(found, self.there)
        words: list[Found] = [word for word, _ in told]
        why: list[list[Why]] = [reasons for _, reasons in told]
        return Landmarks(places_given, found.scores, found.spreads, words, why, self.pose)

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
