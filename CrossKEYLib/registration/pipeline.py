"""iUS and MRI -> rigid transform and its trust: the whole pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from ..config import RegisterConfig
from ..descriptors.dense import DenseEncoder
from ..errors import InputError
from ..estimation import DescriptorScore, RigidResult, locate
from ..estimation.consensus import supported
from ..estimation.feature_pair import aligned
from ..estimation.matching import Matches, Prior, match
from ..estimation.target_error import target_errors
from ..geometry.brain import brain_mask
from ..geometry.field_of_view import binary, inside, ius_in_view, masked, mri_in_view
from ..geometry.intensity import gamma_normalised, rescaled
from ..geometry.transform import Matrix, nearest_rotation, rotation_angle_deg
from ..geometry.volume import Volume
from ..keypoints.sampling import moving_points
from ..models.described import Described
from ..models.patient import Model, describe_brain
from ..models.universal import UniversalModel
from ..runtime.progress import silent
from ..trust.assess import Trust, assess
from ..trust.lc2 import lc2_margin
from ..trust.mind_margin import mind_margin
from ..trust.plausibility import check_pair
from ..trust.tentative import Tentative
from .candidate import Candidate, Pair, Target
from .features import (
    EmbeddingFeatures,
    SelfSimilarities,
    check_settings,
    features_of,
    refined_by,
    wants_universal,
)
from .keypoint_matching import KeypointMatcher
from .result import Registration
from .search import OrientationSearch, stands_out

Progress = Callable[[str], None]

_TURNED_DEG = 5.0  # rotation from which on the iUS is described again
_CLEAR_LEAD = 1.2  # ratio to the best score elsewhere from which on a pose stands out


def register(
    fixed: Volume,
    moving: Volume,
    model: Model | None = None,
    *,
    initial: Matrix | None = None,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    config: RegisterConfig | None = None,
    universal: UniversalModel | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Registration:
    """Register an iUS to an MRI; no start is needed.

    A model that describes patches, as the published one does, registers by SIFT3D keypoints
    (`keypoint_matching`) in one orientation. With any other model both images are described along
    the axes of the MRI. If the first pass does not stand out, or its candidate is not accepted, a
    coarse search tries all orientations (`search`), unless a start was given. The iUS is then
    described again in the orientation that was found.

    Args:
        fixed: MRI, whole or cropped, with skull or without.
        moving: iUS on any background.
        model: the bundled general model when missing.
        initial: ``T_fixed_moving`` to search around, within ``config.capture_radius_mm``.
        fixed_mask: the brain of the MRI where above zero, on any grid; estimated when missing.
        moving_mask: the field of view of the iUS likewise; found in the image when missing.
        config: settings of every stage.
        universal: embedding trained on ultrasound, for the stages that need one; none is
            bundled.
        seed: of everything random; with equal input, results differ by rounding (about 0.01 mm).
        progress: called with the name of each stage as it begins.

    Returns:
        The result with its verdict, even if it is refused.

    Raises:
        InputError: a volume is implausible as MRI or ultrasound, the model does not support the
            settings, or an embedding that they need is missing.
        ModelError: the model belongs to another patient's MRI.
    """
    model, config = model or Model.load(), config or RegisterConfig()
    check_settings(config, model)
    if universal is None and wants_universal(config):
        raise InputError(
            "refine 'uae' and gate_share below 1 need a universal embedding that knows ultrasound; "
            "give one (docs/refinement.md says how it is made)"
        )
    brain = None
    if fixed_mask is not None:
        masked(fixed, fixed_mask, "MRI")
        brain = binary(fixed_mask).to(fixed.device)
    run = _Pipeline(model, config, universal, seed, progress).run
    return run(fixed, ius_in_view(moving, moving_mask), initial, brain)


class _Pipeline:
    """One registration: settings, random state and clock."""

    def __init__(
        self,
        model: Model,
        config: RegisterConfig,
        universal: UniversalModel | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.model, self.config, self.universal = model, config, universal
        self.embedding: EmbeddingFeatures | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.progress = progress or silent
        self.seconds: dict[str, float] = {}
        self.sparse = KeypointMatcher(model, config, self.stage, self.progress)

    @contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        self.progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start

    def run(
        self, fixed: Volume, moving: Volume, initial: Matrix | None, brain: Volume | None
    ) -> Registration:
        start = time.perf_counter()
        check_pair(fixed, moving)
        self.model.check_belongs_to(fixed)
        fixed = mri_in_view(fixed)
        with self.stage("keypoints"):
            ius = gamma_normalised(moving)
            points = moving_points(ius, self.config.moving_points, self.generator)
        described = self.model.described or self._describe_fixed(fixed, brain)
        described = described if brain is None else described.where(inside(brain, described.points))
        prior = None if initial is None else Prior(initial, self.config.capture_radius_mm)
        pair = Pair(Target.of(fixed, described), moving, ius, points, prior)
        if self.universal is not None and wants_universal(self.config):
            with self.stage("embedding"):
                self.embedding = EmbeddingFeatures.of(self.universal, fixed)
        rotation = np.eye(3) if initial is None else nearest_rotation(initial)
        sparse = self.model.describes_patches
        if initial is None and self.config.search_rotations and not sparse:
            candidate, trust = self._searched(pair)
        else:
            if sparse:
                candidate = self._refined(self.sparse.candidate(pair, rotation, self.generator))
            else:
                candidate = self._candidate(pair, self._coarse_pass(pair, rotation), rotation)
            trust = self._assess(candidate)
        self.seconds["total"] = time.perf_counter() - start
        return Registration(
            candidate.result.matrix,
            trust,
            described,
            candidate.moving,
            candidate.matches,
            candidate.result.inliers,
            self._agreeing(candidate),
            min(self.config.reported_matches, len(candidate.matches)),
            self.seconds,
            str(fixed.device),
            self.model.name,
        )

    def _agreeing(self, candidate: Candidate) -> Matches:
        """All matches that agree on the transform, also those that were not used."""
        matrix = candidate.result.matrix
        if matrix is None or candidate.tentative is candidate.matches:
            used, inliers = candidate.matches, candidate.result.inliers
            return Matches(used.indices[inliers], used.scores[inliers])
        every = replace(self.config.consensus, share=1.0)
        ends = candidate.pair.target.described.points, candidate.moving.points
        ranked = supported(*ends, candidate.tentative, every)
        near = target_errors(matrix, *candidate.ends(ranked))
        agree = near <= self.config.estimate.inlier_threshold_mm
        return Matches(ranked.indices[agree], ranked.scores[agree])

    def _describe_fixed(self, fixed: Volume, brain: Volume | None = None) -> Described:
        brain = brain or brain_mask(fixed)
        if self.model.describes_patches:
            return self.sparse.describe(rescaled(fixed), "mri", np.eye(3), brain)
        with self.stage("MRI descriptors"):
            return describe_brain(self.model, rescaled(fixed), brain)

    def _candidate(self, pair: Pair, coarse: Candidate, rotation: np.ndarray) -> Candidate:
        """A coarse pass in ``rotation``, with fewer points of the MRI, estimates the orientation of
        the iUS. The iUS is described again in that orientation and located among all points."""
        tried: list[Candidate] = []
        if coarse.result.matrix is not None:
            turned = nearest_rotation(coarse.result.matrix)
            tried.append(self._once(pair, turned))
        if not tried or tried[0].score < coarse.score:  # the coarse pass was wrong
            tried.append(self._once(pair, rotation))
        return self._finished(max(tried, key=lambda candidate: candidate.score))

    def _coarse_pass(self, pair: Pair, rotation: np.ndarray) -> Candidate:
        return self._once(self._thinned(pair, self.config.coarse_points_moving), rotation)

    def _thinned(self, pair: Pair, most_moving: int) -> Pair:
        return pair.thinned(self.config.coarse_points_fixed, most_moving)

    def _once(self, pair: Pair, rotation: np.ndarray) -> Candidate:
        compared = self._compared(pair, rotation)
        with self.stage("estimation"):
            found = locate(
                *compared.ends(compared.matches),
                self.config.estimate,
                self.generator,
                compared.matches.scores,
                compared.descriptor_score,
            )
        return replace(compared, result=found)

    def _compared(self, pair: Pair, rotation: np.ndarray) -> Candidate:
        """The iUS described in one orientation and matched; no transform yet."""
        moving, tentative = self._matched(pair, rotation)
        with self.stage("estimation"):
            points = pair.target.described.points, moving.points
            matches = supported(*points, tentative, self.config.consensus)
            descriptor_score = DescriptorScore(pair.target.grid, moving.points, moving.descriptors)
        none = torch.zeros(len(matches), dtype=torch.bool, device=matches.scores.device)
        nothing = RigidResult.failure("no transform was estimated", none)
        return Candidate(pair, rotation, moving, tentative, matches, descriptor_score, nothing)

    def _matched(self, pair: Pair, rotation: np.ndarray) -> tuple[Described, Matches]:
        """The iUS described in the orientation of the MRI along RAS, and matched."""
        fixed, config = pair.target.described, self.config
        with self.stage("iUS descriptors"):
            moving = self.model.describe(pair.ius, pair.points, "ius", rotation.T)
        with self.stage("matching"):
            matches = match(
                fixed.descriptors,
                moving.descriptors,
                fixed.points,
                moving.points,
                config.match,
                pair.prior,
            )
        if self.embedding is not None and config.gate_share < 1:
            with self.stage("embedding"):
                both = (matches, fixed, moving)
                matches = self.embedding.gated(*both, pair.ius, rotation, config.gate_share)
        return moving, matches

    def _finished(self, candidate: Candidate) -> Candidate:
        """The transform refined by dense features, and the matches computed again under it."""
        return self._as_laid(self._refined(candidate))

    def _refined(self, candidate: Candidate) -> Candidate:
        """The transform refined by dense features, where they agree better under it."""
        matrix, config, pair = candidate.result.matrix, self.config, candidate.pair
        if config.refine == "none" or matrix is None:
            return candidate
        with self.stage("refinement"):
            features = features_of(config.refine, pair.target.mri, self.model, self.embedding)
            better, seen = refined_by(config.refine, features, pair, matrix)
            candidate = replace(candidate, seen=seen)
            if better is matrix:
                return candidate
            refined = candidate.with_matrix(better, config.estimate.inlier_threshold_mm)
        return candidate if refined.result.matrix is None else refined

    def _as_laid(self, candidate: Candidate) -> Candidate:
        """The same transform with the iUS described and matched again in its new pose, if the
        images agree better then: the less it is rotated, the more of its matches are right. A few
        degrees make no difference to the encoder."""
        matrix, pair = candidate.result.matrix, candidate.pair
        if matrix is None:
            return candidate
        turned = nearest_rotation(matrix)
        if rotation_angle_deg(candidate.rotation.T @ turned) < _TURNED_DEG:
            return candidate
        anew = replace(self._compared(pair, turned), seen=candidate.seen)
        anew = anew.with_matrix(matrix, self.config.estimate.inlier_threshold_mm)
        return max(candidate, anew, key=lambda one: one.score)

    def _searched(self, pair: Pair) -> tuple[Candidate, Trust]:
        """The candidate of the given orientation. If it does not stand out, or is not accepted, the
        candidate of an orientation whose score is clearly better. One candidate is finished and
        assessed where the first pass leaves doubt, else at most two, unless the search is
        thorough."""
        here = self._coarse_pass(pair, np.eye(3))
        chosen: tuple[Candidate, Trust] | None = None
        least = _CLEAR_LEAD * here.score
        with self.stage("orientations"):
            clear = self.config.search.thorough or stands_out(
                here, _CLEAR_LEAD, self.config, self.generator
            )
        if clear:
            candidate = self._candidate(pair, here, np.eye(3))
            chosen = candidate, self._assess(candidate)
            if chosen[1].accepted:
                return chosen
            least = _CLEAR_LEAD * candidate.score
        # With many orientations a narrow lead arises by chance, so it does not count.
        leading = [coarse for coarse in self._other_passes(pair) if coarse.score > least]
        for coarse in leading if self.config.search.thorough else leading[:1]:
            assert coarse.result.matrix is not None
            other = self._once(pair, nearest_rotation(coarse.result.matrix))
            if other.score <= max(least, chosen[0].score if chosen else -np.inf):
                continue
            candidate = self._finished(other)
            chosen = candidate, self._assess(candidate)
            if chosen[1].accepted:
                break
        if chosen is None:
            candidate = self._candidate(pair, here, np.eye(3))
            chosen = candidate, self._assess(candidate)
        return chosen

    def _other_passes(self, pair: Pair) -> list[Candidate]:
        """Coarse passes in the most promising of all orientations, the best first."""
        config, encoder = self.config, self.model.encoder
        assert isinstance(encoder, DenseEncoder)
        with self.stage("orientations"):
            few = self._thinned(pair, len(pair.points))
            search = OrientationSearch(encoder, few, config.search, config.estimate, self.generator)
            poses = search.worth_comparing()
        passes = [self._coarse_pass(pair, nearest_rotation(pose.matrix)) for pose in poses]
        return sorted(passes, key=lambda coarse: coarse.score, reverse=True)

    def _assess(self, candidate: Candidate) -> Trust:
        ius = candidate.pair.ius
        with self.stage("trust"):
            inside = (ius.array > 0).nonzero()
            pick = torch.randint(len(inside), (500,), generator=self.generator)
            view = ius.points_ras(inside[pick.to(inside.device)].float())
            mind, lc2 = self._coincidence(candidate)
            return assess(
                *candidate.ends(candidate.matches),
                candidate.result,
                view,
                self.config.estimate,
                self.config.trust,
                self.generator,
                candidate.descriptor_score,
                mind_margin=mind,
                lc2_margin=lc2,
                tentative=self._tentative(candidate),
            )

    def _tentative(self, candidate: Candidate) -> Tentative | None:
        """The matches from which the used ones were chosen; None where none were chosen."""
        if candidate.tentative is candidate.matches:
            return None
        ends = candidate.ends(candidate.tentative)
        return Tentative(*ends, candidate.tentative.scores, self.config.consensus)

    def _coincidence(self, candidate: Candidate) -> tuple[float | None, float | None]:
        """`mind_margin` and `lc2_margin`; None without a transform."""
        matrix, pair = candidate.result.matrix, candidate.pair
        mri = pair.target.mri
        if matrix is None:
            return None, None
        seen = candidate.seen or aligned(SelfSimilarities(mri), pair.ius, pair.points, matrix)
        return mind_margin(mri, *seen, matrix), lc2_margin(mri, pair.raw, matrix)
