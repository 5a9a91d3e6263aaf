"""All orientations tried quickly: they lie close enough, and the right one leads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from CrossKEYLib.config import EstimateConfig, SearchConfig
from CrossKEYLib.descriptors.dense import DenseEncoder
from CrossKEYLib.estimation.target_error import target_errors
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.intensity import gamma_normalised, rescaled
from CrossKEYLib.geometry.orientations import orientations
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.keypoints.sampling import moving_points
from CrossKEYLib.models.patient import Model, describe_brain
from CrossKEYLib.registration.candidate import Pair, Target
from CrossKEYLib.registration.search import OrientationSearch, Pose
from CrossKEYLib.runtime.resources import resource
from CrossKEYLib.synthesis.anatomy import brain_mask

FARTHEST_DEG = {24: 62.8, 48: 56.0}


@pytest.mark.parametrize("count", FARTHEST_DEG)
def test_every_rotation_lies_near_one_of_the_orientations(count: int) -> None:
    found = Rotation.from_matrix(orientations()[:count])
    assert len(found) == count
    assert found[0].magnitude() == pytest.approx(0)
    others = Rotation.random(500, rng=np.random.default_rng(0))
    nearest = [np.degrees((other * found.inv()).magnitude().min()) for other in others]
    assert max(nearest) <= FARTHEST_DEG[count] + 0.1
    assert max(nearest) > FARTHEST_DEG[count] - 12  # so the limit is no empty promise


@pytest.fixture(scope="module")
def searched() -> tuple[OrientationSearch, transform.Matrix]:
    """A search on the sample, and the pose in which its ultrasound was turned upside down."""
    mri, ius = (Volume.read(resource(f"SampleData/{name}.nii.gz")) for name in ("MRI", "iUS"))
    model = Model.load(resource("Models/demo-patient.pt"))
    described = model.described or describe_brain(model, rescaled(mri), brain_mask(mri))
    turn = Rotation.from_euler("xyz", [100, 15, 80], degrees=True).as_matrix()
    off = transform.about(ius.centre_ras, turn, np.array([10.0, -20.0, 5.0]))
    moved, generator = ius.moved(off), torch.Generator().manual_seed(0)
    even = gamma_normalised(moved)
    points = moving_points(even, 4000, generator)
    pair = Pair(Target.of(mri, described), moved, even, points, None).thinned(40000, 4000)
    assert isinstance(model.encoder, DenseEncoder)
    config = replace(SearchConfig(), keep=3)
    return OrientationSearch(model.encoder, pair, config, EstimateConfig(), generator), off


def test_the_right_pose_of_a_turned_ultrasound_leads(
    searched: tuple[OrientationSearch, transform.Matrix],
) -> None:
    search, off = searched
    poses = search.poses()
    fixed, moving = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    errors = target_errors(poses[0].matrix, fixed, transform.apply(off, moving))
    assert float(errors.mean()) < 8  # coarse: the closer look brings it to a millimetre
    assert poses[0].score == max(pose.score for pose in poses)
    assert len(poses) <= 3


def test_a_clear_lead_spares_the_other_orientations(
    searched: tuple[OrientationSearch, transform.Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    search, off = searched
    rounds: list[int] = []

    def tried(scores: list[float]) -> list[Pose]:
        shifts = [np.array([40.0 * n, 0, 0]) for n in range(len(scores))]
        return [
            Pose(transform.about(np.zeros(3), np.eye(3), shift) @ off, score)
            for shift, score in zip(shifts, scores, strict=True)
        ]

    for scores, expected in (([2.0, 1.5], [24]), ([2.0, 1.9], [24, 24])):
        rounds.clear()

        def record(rotations: np.ndarray, climb: bool, scores: list[float] = scores) -> list[Pose]:
            if not climb:
                rounds.append(len(rotations))
            return tried(scores)

        monkeypatch.setattr(search, "_tried", record)
        poses = search.worth_comparing()
        assert rounds == expected
        assert len(poses) == (1 if len(expected) == 1 else 2)


def test_poses_differ(searched: tuple[OrientationSearch, transform.Matrix]) -> None:
    search, off = searched
    near = transform.about(np.zeros(3), np.eye(3), np.array([3.0, 0, 0])) @ off
    far = transform.about(np.zeros(3), np.eye(3), np.array([30.0, 0, 0])) @ off
    kept = search.distinct([Pose(near, 1.0), Pose(off, 2.0), Pose(far, 1.5)])
    assert [pose.score for pose in kept] == [2.0, 1.5]
