"""Trust on simulated matches: chance and lumps refused, good ones accepted, errors foreseen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.known import known
from phantoms.matches import CENTRE, Matched, as_points, place_right, simulate
from scipy.stats import spearmanr

from CrossKEYLib.config import EstimateConfig, TrustConfig
from CrossKEYLib.errors import EstimationError
from CrossKEYLib.estimation import RigidResult, estimate_rigid
from CrossKEYLib.geometry.transform import apply
from CrossKEYLib.trust.assess import Trust, assess
from CrossKEYLib.trust.confidence import TrustModel

CONFIG = EstimateConfig(hypotheses=10_000)
TRUST = TrustConfig(hypotheses=1500, chance_repeats=3)  # a third of the usual time


def assessed(
    matched: Matched,
    seed: int = 0,
    trust: TrustConfig = TRUST,
    mind_margin: float | None = 0.03,
    lc2_margin: float | None = 0.4,
) -> tuple[RigidResult, Trust]:
    """Estimate and assess; the images are said to coincide, unless told otherwise."""
    generator = torch.Generator().manual_seed(seed)
    result = estimate_rigid(matched.fixed, matched.moving, CONFIG, generator)
    given = (matched.fixed, matched.moving, result, matched.fov, CONFIG, trust, generator)
    return result, assess(*given, mind_margin=mind_margin, lc2_margin=lc2_margin)


@pytest.mark.parametrize("seed", range(20))
def test_chance_is_refused(seed):
    _, verdict = assessed(
        simulate(seed, count=800, share=0.0), seed, mind_margin=0.0, lc2_margin=0.02
    )
    assert verdict.verdict == "refused"
    assert verdict.reasons
    assert verdict.confidence < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_fifteen_percent_right_are_accepted(seed):
    matched = simulate(seed, share=0.15)
    result, verdict = assessed(matched, seed)
    assert verdict.accepted
    assert verdict.verdict == "accepted"
    assert verdict.reasons == []
    assert verdict.confidence > 0.9
    assert verdict.n_inliers == result.n_inliers > 5 * known(verdict.chance_inliers)
    assert verdict.inlier_rms_mm == result.rms_mm
    assert known(verdict.raw_error_mm) < 1
    hidden = TrustModel.load().hidden_mm
    assert verdict.predicted_tre_mm == pytest.approx(
        math.hypot(known(verdict.raw_error_mm), hidden)
    )


def test_predicted_error_follows_and_covers_the_true_error():
    """16 simulations from easy to hard; coverage is of the mean TRE by its predicted mean."""
    true, predicted = [], []
    for seed in range(16):
        count, noise_mm = (100, 200, 400, 800)[seed % 4], (0.5, 1.5, 2.5)[seed % 3]
        matched = simulate(100 + seed, count=count, share=0.3, noise_mm=noise_mm)
        result, verdict = assessed(matched, seed, replace(TRUST, chance_repeats=1))
        true.append(matched.tre(result.matrix))
        predicted.append(verdict.raw_error_mm)
    ratio = np.array(true) / np.array(predicted)
    assert spearmanr(true, predicted)[0] > 0.7
    assert np.mean(ratio <= 1) >= 0.6
    assert np.max(ratio) < 2.5
    assert 0.3 < np.median(ratio) < 1.2


@pytest.mark.parametrize(
    ("mind_margin", "lc2_margin", "words"),
    [
        (0.03, 0.4, None),
        (-0.005, 0.4, "fits no better here than a few millimetres away"),
        (0.001, 0.0, "bright structures in the ultrasound hardly better here"),
        (None, None, "Too little of the ultrasound lies on the MRI"),
    ],
)
def test_images_that_do_not_coincide_are_not_accepted_whatever_the_matches_say(
    mind_margin, lc2_margin, words
):
    verdict = assessed(simulate(0, share=0.15), mind_margin=mind_margin, lc2_margin=lc2_margin)[1]
    assert verdict.accepted is (words is None)
    assert (verdict.mind_margin, verdict.lc2_margin) == (mind_margin, lc2_margin)
    assert any((words or "") in reason for reason in verdict.reasons) is (words is not None)


@pytest.mark.parametrize("shape", ["ball", "line"])
@pytest.mark.parametrize("seed", range(2))
def test_right_matches_in_a_lump_or_on_a_line_lose_trust(shape, seed):
    matched, rng = simulate(seed, share=0.15), np.random.default_rng(seed)
    n = int(matched.right.sum())
    direction = rng.normal(size=(n if shape == "ball" else 1, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = (
        10 * np.cbrt(rng.uniform(size=(n, 1))) if shape == "ball" else rng.uniform(-30, 30, (n, 1))
    )
    place_right(matched, as_points(CENTRE + reach * direction), rng, 1.5)
    _, verdict = assessed(matched, seed)
    plain = assessed(simulate(seed, share=0.15), seed)[1]
    narrow = known(verdict.spread_mm) < 0.7 * known(plain.spread_mm)
    assert narrow or known(verdict.raw_error_mm) > 5
    assert verdict.confidence < plain.confidence


def test_matches_of_another_shape_of_brain_lose_trust():
    """Neighbours that deviate in common, as between two patients, must not look like noise."""
    matched = simulate(0, count=700, share=0.3)
    points = matched.moving[matched.right]
    plain = assessed(matched)[1]
    wave = 7 * torch.sin(points / 11).roll(1, dims=1)
    bent = apply(matched.T_fixed_moving, points + wave)
    matched.fixed[matched.right] = bent + torch.randn(
        bent.shape, generator=torch.Generator().manual_seed(0)
    )
    verdict = assessed(matched)[1]
    assert known(plain.deformation_mm) < 0.6
    assert known(verdict.deformation_mm) > 2
    assert known(verdict.predicted_tre_mm) > 3 * known(plain.predicted_tre_mm)
    assert verdict.confidence < plain.confidence


def test_a_failed_estimation_is_refused_with_its_reason():
    matched = simulate(0, count=3, share=1.0)
    _, verdict = assessed(matched)
    assert not verdict.accepted
    assert verdict.confidence == 0
    assert verdict.predicted_tre_mm is None
    assert verdict.agreement_mm is None
    assert "only 3 matches" in verdict.reasons[0]


def test_same_seed_same_verdict():
    matched = simulate(2, count=300, share=0.2)
    assert assessed(matched, 5)[1] == assessed(matched, 5)[1]


def test_an_empty_field_of_view_is_refused():
    matched = simulate(0, count=50, share=1.0)
    matched.fov = torch.zeros(0, 3)
    with pytest.raises(EstimationError, match="fov_points"):
        assessed(matched)
