"""Training pairs: equal places in both crops, no way to tell them from where the crops lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms.training import ORIGIN, patient_of, small_patient, texture
from scipy.spatial.transform import Rotation

from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.deformation import Deformation
from CrossKEYLib.synthesis.simulator import Simulation
from CrossKEYLib.training.patient import pairs as pairs_module
from CrossKEYLib.training.patient.pairs import BORDER_VOXELS, Pair, Patient, draw_pairs

MARKER = torch.tensor(ORIGIN) + torch.tensor([20.0, 26.0, 22.0])


def marked(volume: Volume, at: torch.Tensor = MARKER) -> Volume:
    """Faint texture with a bright ball of 2 mm."""
    distance = (Grid.of(volume).points() - at).norm(dim=-1)
    ball = torch.exp(-0.5 * (distance / 2) ** 2)
    return volume.replaced(0.3 + 0.1 * volume.array + 0.6 * ball)


def marker_patient(at_ius: torch.Tensor = MARKER) -> Patient:
    """Two unrelated textures that share nothing but the marker; the brain is what is near it."""
    patient = patient_of(marked(texture(seed=1)), [marked(texture(seed=2), at_ius)])
    points = Grid.of(patient.contrasts[0]).points()
    patient.anatomy.maps[3] = ((points - MARKER).norm(dim=-1) < 14).float()
    return patient


def pairs_of(patient: Patient, count: int = 8, **options) -> list[Pair]:
    generator = torch.Generator().manual_seed(3)
    options = {"max_angle_deg": 20.0, "points": 64, "crop_mm": 32.0, **options}
    return draw_pairs(patient, generator, count=count, **options)


def marker_in(volume: Volume) -> torch.Tensor:
    """RAS mm of what stands out most within 12 mm of the marker."""
    points = Grid.of(volume).points()
    near = ((points - MARKER).norm(dim=-1) < 12) & (volume.array > 0)
    smooth = gaussian(volume.array, 1.0)
    contrast = (smooth - smooth[near].median()).abs() * near
    return points.reshape(-1, 3)[contrast.argmax()]


def contains(volume: Volume, point: torch.Tensor, margin: float) -> bool:
    ijk = transform.apply(volume.ras_to_ijk, point)
    last = torch.tensor(volume.shape[::-1]) - 1
    return bool(((ijk >= margin) & (ijk <= last - margin)).all())


def local_euler_deg(volume: Volume) -> np.ndarray:
    axes = volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    return Rotation.from_matrix(axes).as_euler("xyz", degrees=True)


def offsets(patient: Patient, at_ius: torch.Tensor) -> torch.Tensor:
    """How far (mm) the marker seems from where it was put, per pair: columns MRI, iUS."""
    pairs = pairs_of(patient, 60)
    both = [p for p in pairs if contains(p.mri, MARKER, 4) and contains(p.ius, at_ius, 4)]
    assert len(both) >= 5
    errors = [
        [float((marker_in(p.mri) - MARKER).norm()), float((marker_in(p.ius) - at_ius).norm())]
        for p in both
    ]
    return torch.tensor(errors)


def test_both_crops_show_a_marker_at_the_same_place():
    """In most crops: some intensity curves make the marker vanish."""
    errors = offsets(marker_patient(), MARKER)
    assert float(errors.quantile(0.7, 0).max()) < 1.2


def test_a_displaced_marker_is_found_displaced():
    """So the test above sees an error of a few millimetres."""
    there = MARKER + 3
    errors = offsets(marker_patient(there), there)
    assert float(errors.quantile(0.7, 0).max()) < 1.2


def test_common_points_show_the_same_content():
    """The ultrasound is the inverted MRI, so values at the points are opposed."""
    true, wrong = [], []
    for pair in pairs_of(small_patient(), 16, max_angle_deg=30.0, points=128):
        both = torch.stack(
            [pair.mri.sample(pair.points_fixed), pair.ius.sample(pair.points_moving)]
        )
        true.append(rank_correlation(both[0], both[1]))
        wrong.append(rank_correlation(both[0], both[1].roll(1)))
    assert np.median(true) < -0.8
    assert abs(np.median(wrong)) < 0.2


def test_points_of_a_deformed_pair_show_the_same_content(monkeypatch):
    """The ultrasound shows the inverted MRI 5 mm beside its place; the points know that."""
    patient, shift = small_patient(), torch.tensor([5.0, 0.0, 0.0])
    beside = transform.from_parts(np.eye(3), -shift.numpy())
    ius = patient.synthetic[0].moved(beside)
    everywhere = transform.from_parts(400 * np.eye(3), [-200.0] * 3)
    field = shift[:, None, None, None].expand(3, 2, 2, 2).contiguous()
    made = Simulation(ius, deformation=Deformation(field, everywhere))
    monkeypatch.setattr(pairs_module, "_drawn_ius", lambda *args, **options: made)
    right, unaware = [], []
    for pair in pairs_of(patient, 16, points=128):
        assert torch.allclose(pair.points_fixed - pair.points_moving, shift, atol=1e-3)
        fixed = pair.mri.sample(pair.points_fixed), pair.mri.sample(pair.points_moving)
        right.append(rank_correlation(fixed[0], pair.ius.sample(pair.points_moving)))
        unaware.append(rank_correlation(fixed[1], pair.ius.sample(pair.points_moving)))
    assert np.median(right) < -0.75
    assert abs(np.median(unaware)) < 0.3


def shown_at_points(pair: Pair) -> torch.Tensor:
    """``[2, N]``: what the MRI and the iUS show at the common points."""
    fixed, moving = pair.mri.sample(pair.points_fixed), pair.ius.sample(pair.points_moving)
    return torch.stack([fixed, moving])


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    ranks = torch.stack([a, b]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def test_points_lie_inside_both_crops():
    for pair in pairs_of(small_patient()):
        assert 16 <= len(pair.points_fixed) <= 64
        for volume, points in ((pair.mri, pair.points_fixed), (pair.ius, pair.points_moving)):
            ijk = transform.apply(volume.ras_to_ijk, points)
            last = torch.tensor(volume.shape[::-1]) - 1
            tolerance = 1e-3
            assert bool((ijk >= BORDER_VOXELS - tolerance).all())
            assert bool((ijk <= last - BORDER_VOXELS + tolerance).all())
        ijk = transform.apply(pair.mri.ras_to_ijk, pair.elsewhere)
        assert len(ijk) == 128
        assert bool((ijk > -1e-3).all())
        assert bool((ijk < 31 + 1e-3).all())


@pytest.mark.parametrize("angle", [0.0, 20.0])
def test_crops_are_never_laid_alike(angle):
    """Else the distance to the border alone would tell which points belong together."""
    pairs = pairs_of(small_patient(), 12, max_angle_deg=angle)
    shifts = []
    for pair in pairs:
        in_mri = transform.apply(pair.mri.ras_to_ijk, pair.points_fixed)
        in_ius = transform.apply(pair.ius.ras_to_ijk, pair.points_moving)
        shifts.append((in_mri - in_ius).mean(0))
        assert float(shifts[-1].norm()) > 0.5
    assert bool((torch.stack(shifts).std(0) > 2).all())


def test_rotation_is_bounded_and_used():
    pairs = pairs_of(small_patient(), 24, max_angle_deg=20.0)
    angles = np.abs([local_euler_deg(v) for p in pairs for v in (p.mri, p.ius)])
    assert angles.max() <= 10 + 1e-3  # each crop turns by half of it
    assert (angles.max(0) > 7).all()
    still = pairs_of(small_patient(), 4, max_angle_deg=0.0)
    assert np.abs([local_euler_deg(p.mri) for p in still]).max() < 1e-3


def test_the_generator_decides():
    first, again = (pairs_of(small_patient(), 2) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.mri.array, b.mri.array)
        assert torch.equal(a.ius.array, b.ius.array)
        assert torch.equal(a.points_moving, b.points_moving)
    other = draw_pairs(
        small_patient(), torch.Generator().manual_seed(4), max_angle_deg=20, crop_mm=32.0
    )
    assert not torch.equal(other[0].mri.array, first[0].mri.array)


def test_points_stay_in_the_brain_and_the_field_of_view():
    patient = small_patient()
    half = (Grid.of(patient.contrasts[0]).points()[..., 0] < ORIGIN[0] + 24).float()
    narrow = [v.replaced(v.array * half) for v in patient.synthetic]
    patient = replace(patient, synthetic=narrow)
    brain = (Grid.of(patient.contrasts[0]).points()[..., 1] > ORIGIN[1] + 12).float()
    patient.anatomy.maps[3] = brain
    pairs = pairs_of(patient, max_angle_deg=10)
    assert pairs
    points = torch.cat([pair.points_moving for pair in pairs])
    assert float(points[:, 0].max()) < ORIGIN[0] + 24.5
    assert float(points[:, 1].min()) > ORIGIN[1] + 11


def test_an_ultrasound_in_mri_tones_shows_the_mri_in_its_own_field_of_view():
    mri, other = texture(seed=1), texture(seed=2)
    half = (Grid.of(mri).points()[..., 0] < ORIGIN[0] + 30).float()
    patient = patient_of(mri, [other.replaced(other.array * half)])

    def drawn(in_mri_tones: bool) -> tuple[float, torch.Tensor]:
        pairs = pairs_of(patient, 24, points=128, in_mri_tones=in_mri_tones)
        alike = [
            abs(
                rank_correlation(
                    pair.mri.sample(pair.points_fixed), pair.ius.sample(pair.points_moving)
                )
            )
            for pair in pairs
        ]
        shown = [Grid.of(pair.ius).points()[pair.ius.array > 0][:, 0].max() for pair in pairs]
        return float(np.median(alike)), torch.stack(shown)

    alike, shown = drawn(in_mri_tones=True)
    assert alike > 0.6
    assert float(shown.max()) < ORIGIN[0] + 30.5
    assert drawn(in_mri_tones=False)[0] < 0.35  # two smooth textures are alike here and there


def test_salient_places_are_preferred():
    patient = small_patient()
    right = (Grid.of(patient.contrasts[0]).points()[..., 0] > ORIGIN[0] + 20).float()
    patient = replace(patient, saliency=patient.saliency.replaced(right))
    points = torch.cat([pair.points_moving for pair in pairs_of(patient, 12, max_angle_deg=0.0)])
    assert float((points[:, 0] > ORIGIN[0] + 19.5).float().mean()) > 0.8


def test_views_that_hold_too_little_are_left_out():
    patient = small_patient()
    patient.anatomy.maps.zero_()
    assert pairs_of(patient) == []
    dark = patient_of(
        patient.contrasts[0], [patient.synthetic[0].replaced(0 * patient.synthetic[0].array)]
    )
    assert pairs_of(dark) == []
