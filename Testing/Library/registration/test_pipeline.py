"""The whole pipeline on the bundled case: right transforms, honest refusals, determinism."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.universal import small_network

from CrossKEYLib.config import RegisterConfig
from CrossKEYLib.descriptors.dense import DenseEncoder
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.brain import brain_mask
from CrossKEYLib.geometry.intensity import gamma_normalised, rescaled
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.patient import Model, describe_brain, fingerprint
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.registration import pipeline
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.resources import resource
from CrossKEYLib.trust.assess import Trust, assess

QUICK = RegisterConfig(moving_points=2000, search_rotations=False)


@pytest.fixture(scope="module")
def mri() -> Volume:
    return Volume.read(resource("SampleData/MRI.nii.gz"))


@pytest.fixture(scope="module")
def ius() -> Volume:
    return Volume.read(resource("SampleData/iUS.nii.gz"))


@pytest.fixture(scope="module")
def model(mri: Volume) -> Model:
    """The bundled model of the sample MRI, whose keypoints are described once for all tests."""
    loaded = Model.load(resource("Models/demo-patient.pt"))
    return replace(loaded, described=describe_brain(loaded, rescaled(mri), brain_mask(mri)))


def landmark_error(matrix: np.ndarray) -> float:
    fixed, moving = read_landmark_pairs([resource("SampleData/landmarks.csv")])
    return float((transform.apply(matrix, moving) - fixed).norm(dim=1).mean())


def test_the_misplaced_sample_is_found_and_trusted(mri: Volume, ius: Volume, model: Model) -> None:
    assert landmark_error(np.eye(4)) > 10
    result = register(mri, ius, model, config=QUICK)
    assert result, result.trust.reasons
    assert result.matrix is not None
    assert landmark_error(result.matrix) < 1.5
    assert np.linalg.det(result.matrix[:3, :3]) == pytest.approx(1)
    assert len(result.matches) == len(result.inliers) > QUICK.reported_matches
    assert result.trust.n_inliers == int(result.inliers.sum())  # one population
    assert bool((result.matches.scores.diff() <= 0).all())  # the best of those that were used
    fixed, moving = (p[result.inliers] for p in result.matched_points())
    assert (transform.apply(result.matrix, moving) - fixed).norm(dim=1).max() <= 4.01
    shown, there, agree = result.drawn_points()
    assert len(there) == QUICK.reported_matches
    assert (transform.apply(result.matrix, there) - shown)[agree].norm(dim=1).max() <= 4.01
    reported = result.reported_points()[1]
    assert float(there.std(0).norm()) > 1.3 * float(reported.std(0).norm())


def test_matches_are_those_of_the_ultrasound_as_the_result_lays_it(
    mri: Volume, ius: Volume, model: Model
) -> None:
    off = transform.random_rigid(np.random.default_rng(3), 5.0, 25.0, ius.centre_ras)
    moved = ius.moved(off)
    result = register(mri, moved, model, config=QUICK)
    assert result.matrix is not None
    points, turned = result.moving.points, transform.nearest_rotation(result.matrix)
    there, as_given = (
        model.describe(gamma_normalised(moved), points, "ius", rotation.T).descriptors
        for rotation in (turned, np.eye(3))
    )
    assert float((result.moving.descriptors * there).sum(1).mean()) > 0.98  # within 5 degrees
    assert float((result.moving.descriptors * as_given).sum(1).mean()) < 0.95


def test_report_is_plain_json_with_all_fields(mri: Volume, ius: Volume, model: Model) -> None:
    report = json.loads(json.dumps(register(mri, ius, model, config=QUICK).report()))
    assert report["accepted"] is True
    assert report["reasons"] == []
    assert 0.5 <= report["confidence"] <= 1
    assert np.array(report["matrix_ras"]).shape == (4, 4)
    assert report["n_inliers"] <= report["n_matches"] <= report["n_keypoints_ius"]
    assert report["n_reported_matches"] == QUICK.reported_matches < report["n_matches"]
    assert report["seconds"]["total"] > 0
    for key in ("predicted_tre_mm", "inlier_rms_mm", "n_keypoints_mri", "device", "model"):
        assert report[key] is not None, key


def test_equal_seeds_give_equal_results(mri: Volume, ius: Volume, model: Model) -> None:
    a, b = (register(mri, ius, model, config=QUICK, seed=5) for _ in range(2))
    # Rounding may differ between runs, and the search carries it on.
    np.testing.assert_allclose(a.matrix, b.matrix, atol=0.05)
    assert a.trust.accepted == b.trust.accepted
    assert abs(a.trust.confidence - b.trust.confidence) < 0.1


def test_a_start_far_outside_its_capture_range_is_not_followed(
    mri: Volume, ius: Volume, model: Model
) -> None:
    wrong = np.eye(4)
    wrong[:3, 3] = [0, 0, 90]
    result = register(mri, ius, model, initial=wrong, config=QUICK)
    assert not result


def test_any_orientation_is_found_without_a_start(mri: Volume, ius: Volume, model: Model) -> None:
    off = transform.arbitrary_rigid(np.random.default_rng(1), 100.0, ius.centre_ras)
    assert np.trace(off[:3, :3]) < 0  # turned by more than 120 degrees
    stages: list[str] = []
    searching = replace(QUICK, search_rotations=True)
    result = register(mri, ius.moved(off), model, config=searching, progress=stages.append)
    assert result, result.trust.reasons
    assert result.matrix is not None
    assert landmark_error(result.matrix @ off) < 1.5
    assert stages.count("orientations") >= 2  # it was not found at once


def test_ultrasound_of_something_else_is_refused(mri: Volume, ius: Volume, model: Model) -> None:
    """The sample's field of view filled with speckle that shows no anatomy."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(ius.shape, generator=generator) * 150 + 1
    result = register(mri, ius.replaced(torch.where(ius.array > 0, noise, 0)), model, config=QUICK)
    assert not result
    assert result.trust.confidence < 0.5
    assert result.trust.reasons


def test_a_refused_pair_is_assessed_once_or_twice(
    mri: Volume, ius: Volume, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every assessment costs as much as a registration that is accepted."""
    assessed: list[None] = []

    def counted(*arguments: object, **named: object) -> Trust:
        assessed.append(None)
        return assess(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "assess", counted)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(ius.shape, generator=generator) * 150 + 1
    empty = ius.replaced(torch.where(ius.array > 0, noise, 0))
    searching = replace(QUICK, search_rotations=True)
    assert not register(mri, empty, model, config=searching)
    assert 1 <= len(assessed) <= 2


def test_another_patients_model_is_refused(mri: Volume, ius: Volume, model: Model) -> None:
    assert model.mri == (fingerprint(mri),)
    with pytest.raises(ModelError, match="another MRI"):
        register(mri.moved(np.diag([1.0, 1, 1.01, 1])), ius, model)


def test_empty_ultrasound_is_bad_input(mri: Volume, ius: Volume, model: Model) -> None:
    with pytest.raises(InputError):
        register(mri, ius.replaced(torch.zeros(ius.shape)), model, config=QUICK)


def test_describing_in_parts_agrees_with_the_whole(mri: Volume, model: Model) -> None:
    assert isinstance(model.encoder, DenseEncoder)
    centre = torch.from_numpy(mri.centre_ras).float()
    shifts = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) * 80 - 40
    scaled, points = rescaled(mri), centre + shifts
    whole = model.encoder.describe(scaled, points, "mri")
    parts = model.encoder.describe(scaled, points, "mri", max_voxels=600_000)
    agreement = (whole * parts).sum(1)
    assert float(agreement.median()) > 0.95


def test_gate_and_refinement_take_part_when_asked(mri: Volume, ius: Volume, model: Model) -> None:
    config = replace(QUICK, gate_share=0.9, refine="crosskey")
    universal = UniversalModel(small_network().eval(), "untrained")
    result = register(mri, ius, model, config=config, universal=universal)
    assert result, result.trust.reasons
    assert result.matrix is not None
    assert landmark_error(result.matrix) < 1.5
    assert {"embedding", "refinement"} <= result.seconds.keys()


def test_both_similarities_have_the_last_word_when_asked(
    mri: Volume, ius: Volume, model: Model
) -> None:
    """From one seed the search ends alike, so what differs is the refinement."""
    by_both, by_one = (
        register(mri, ius, model, config=replace(QUICK, refine=kind))
        for kind in ("mind+lc2", "mind")
    )
    assert by_both.matrix is not None
    assert by_one.matrix is not None
    assert landmark_error(by_both.matrix) < 1.5
    assert 0.02 < np.abs(by_both.matrix - by_one.matrix).max() < 2.0
