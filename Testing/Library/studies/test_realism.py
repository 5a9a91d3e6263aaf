from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from phantoms.heads import (
    CENTRE,
    DATA,
    block_anatomy,
    clear_style,
    grid_around,
    mottled,
    probe_above,
    sheet,
)
from phantoms.volumes import ORIENTATIONS

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.synthesis.simulator import simulate
from Testing.Studies.appearance import BINS, Appearance, appearance, beam_axes, half_width
from Testing.Studies.realism import (
    compare,
    draw,
    histogram_distance,
    histogram_overlap,
    main,
    mean_profile,
    profile_distance,
    table,
)

REAL = DATA / "resect" / "us" / "Case14_US_before.nii.gz"


def fan(
    axes: np.ndarray,
    sigmas: tuple[float, float, float] = (0.6, 1.2, 1.2),
    gain: float = 0.0,
    seed: int = 0,
) -> Volume:
    """Speckle in a widening field of view, 1 mm; ``sigmas`` along depth, elevation, lateral.

    ``gain`` is what the mean intensity loses per mm of depth.
    """
    grid = grid_around(CENTRE, axes, 44)
    noise = torch.randn(grid.shape, generator=torch.Generator().manual_seed(seed))
    speckle = gaussian(noise, list(sigmas))
    k, j, i = (torch.arange(n, dtype=torch.float32) for n in grid.shape)
    image = 10 + speckle / speckle.std() - gain * k[:, None, None]
    half = 12 + 0.22 * k
    inside = ((i - 22).abs() < half[:, None])[:, None] & ((j - 22).abs() < 16)[None, :, None]
    inside &= (k > 3)[:, None, None]
    return Volume(torch.where(inside, image, 0.0), grid.ijk_to_ras)


@pytest.mark.parametrize("orientation", ["ras", "left-handed", "oblique"])
def test_beam_is_read_off_the_image(orientation):
    """The fine direction, pointing to where the fan is wide, whatever the storage order."""
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    for axes in (ORIENTATIONS[orientation], turned):
        found = beam_axes(fan(axes))
        assert found[:, 2] @ axes[:, 2] > np.cos(np.radians(10))
        assert np.linalg.det(found) == pytest.approx(1)


def test_beam_of_a_simulated_volume():
    anatomy = block_anatomy(sheet(grid_around(CENTRE, np.eye(3), 60)))
    probe = probe_above(ORIENTATIONS["oblique"], apex_mm=40.0)
    style = clear_style(speckle=1.0, axial_mm=0.6, lateral_mm=1.5, sheet_gain=2.0)
    generator = torch.Generator().manual_seed(0)
    volume = simulate(anatomy, generator, probe=probe, style=style).volume
    assert beam_axes(volume)[:, 2] @ probe.local_to_ras[:3, 2] > np.cos(np.radians(15))


def test_half_width_of_a_gaussian():
    lags = np.arange(8) * 0.5
    curve = np.exp(-0.5 * (lags / 0.9) ** 2)
    assert half_width(curve, 0.5) == pytest.approx(2 * 0.9 * np.sqrt(2 * np.log(2)), rel=0.01)
    with pytest.raises(InputError, match="no fine texture"):
        half_width(np.ones(8), 1.0)


def test_speckle_widths():
    """Noise blurred by sigma correlates over sigma sqrt(2), but for what the high-pass takes."""
    look = appearance(fan(np.eye(3), (0.8, 1.4, 1.4)), axes=np.eye(3))
    factor = 4 * np.sqrt(np.log(2))
    assert look.along_mm == pytest.approx(0.8 * factor, rel=0.15)
    assert look.across_mm == pytest.approx(1.4 * factor, rel=0.15)
    coarser = appearance(fan(np.eye(3), (1.4, 1.4, 1.4)), axes=np.eye(3))
    assert coarser.along_mm > 1.25 * look.along_mm


def test_profile_over_depth():
    """A linear loss of intensity comes back linear, counted from the near surface."""
    look = appearance(fan(np.eye(3), gain=0.1), axes=np.eye(3))
    profile = look.profile[np.isfinite(look.profile)]
    assert len(profile) == pytest.approx(41, abs=1)
    slope, start = np.polyfit(np.arange(len(profile)), profile, 1)
    assert slope < 0
    assert np.abs(profile - (start + slope * np.arange(len(profile)))).max() < 0.1
    flat = appearance(fan(np.eye(3)), axes=np.eye(3)).profile
    assert np.nanstd(flat) < 0.05


def test_a_volume_is_like_itself_moved_and_scaled():
    """Neither units nor pose count."""
    volume = fan(np.eye(3))
    turned = volume.moved(from_parts(ORIENTATIONS["oblique"], [5, -7, 9]))
    turned = turned.replaced(300 * volume.array)
    a = appearance(volume, axes=np.eye(3))
    b = appearance(turned, axes=ORIENTATIONS["oblique"])
    assert histogram_distance(a.histogram, b.histogram) < 0.01
    assert a.along_mm == pytest.approx(b.along_mm, rel=0.02)
    assert profile_distance(a.profile, b.profile) < 0.02


def test_distances_against_closed_form():
    at = np.eye(BINS)
    assert histogram_distance(at[5], at[30]) == pytest.approx(25 / BINS)
    assert histogram_distance(at[5], at[5]) == 0
    assert histogram_overlap((at[5] + at[6]) / 2, (at[6] + at[7]) / 2) == pytest.approx(0.5)
    a, b = np.array([0.1, 0.2, 0.3, np.nan]), np.array([0.4, 0.5, 0.6])
    assert profile_distance(a, b) == pytest.approx(0.3)


def look(level: int, along: float = 2.0) -> Appearance:
    profile = np.full(10, level / BINS)
    return Appearance(np.eye(BINS)[level], along, 3.0, 0.2, profile, np.zeros((4, 4)))


def test_compare_holds_simulated_against_real_and_real_against_real():
    rows = {row.measure: row for row in compare([look(10), look(12)], [look(30, 5.0), look(34)])}
    brightness = rows["histogram, Wasserstein-1"]
    assert brightness.pooled == pytest.approx(21 / BINS)
    assert brightness.one_simulated == pytest.approx(21 / BINS)
    assert brightness.one_real == pytest.approx(2 / BINS)
    width = rows["speckle along the beam (mm)"]
    assert width.pooled == pytest.approx(1.5)
    assert width.one_real == 0
    assert width.real == (2.0, 2.0, 2.0)
    assert rows["profile over depth, RMS"].pooled == pytest.approx(21 / BINS)
    lines = table(list(rows.values())).splitlines()
    assert len(lines) == len(rows) + 2
    assert {line.count("|") for line in lines} == {7}
    with pytest.raises(InputError, match="at least two real"):
        compare([look(10)], [look(30)])


def test_patients_are_simulated_in_turn():
    """The figure counts on it to show the first patient only."""
    patient = sheet(grid_around(CENTRE, np.eye(3), 60))
    other = patient.moved(from_parts(np.eye(3), [300, 0, 0]))
    drawn = draw([[patient], [other]], 4, torch.Generator().manual_seed(0))
    is_other = [bool(volume.centre_ras[0] > CENTRE[0] + 150) for volume, _ in drawn]
    assert is_other == [False, True, False, True]


def test_mean_profile_ends_where_most_do():
    short, long = look(10), look(20)
    object.__setattr__(long, "profile", np.full(30, 0.4))
    mean = mean_profile([short, short, long])
    assert mean[:10] == pytest.approx((0.2 + 0.2 + 0.4) / 3)
    assert np.isnan(mean[10:]).all()


def test_command_writes_table_figure_and_numbers(tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("us1", "us2", "mri")}
    fan(np.eye(3)).write(paths["us1"])
    fan(ORIENTATIONS["oblique"], seed=1).write(paths["us2"])
    sheet(grid_around(CENTRE, np.eye(3), 60)).write(paths["mri"])
    figure, output = tmp_path / "figure.png", tmp_path / "numbers.json"
    arguments = ["--real", str(paths["us1"]), str(paths["us2"]), "--mri", str(paths["mri"])]
    arguments += ["--count", "2", "--seed", "1", "--output", str(output)]
    assert main([*arguments, "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert "| histogram, Wasserstein-1 |" in printed
    assert "degrees (median) off" in printed
    numbers = json.loads(output.read_text())
    assert len(numbers["real"]) == len(numbers["simulated"]) == 2
    assert "section" not in numbers["real"][0]
    assert figure.read_bytes().startswith(b"\x89PNG")
    hidden = tmp_path / "hidden.png"
    assert main([*arguments, "--figure", str(hidden), "--hide-real"]) == 0
    height = [int.from_bytes(path.read_bytes()[20:24], "big") for path in (figure, hidden)]
    assert height[1] < height[0]  # a row of slices is gone
    assert capsys.readouterr().out == printed  # equal seeds, equal numbers


def test_command_refuses_in_one_line(tmp_path, capsys):
    missing = str(tmp_path / "none.nii.gz")
    assert main(["--real", missing, missing, "--mri", missing]) == 2
    message = capsys.readouterr().err
    assert "none.nii.gz" in message
    assert message.count("\n") == 1


def test_flat_image_is_refused():
    grid = grid_around(CENTRE, np.eye(3), 20)
    with pytest.raises(InputError, match="constant"):
        appearance(Volume(torch.ones(grid.shape), grid.ijk_to_ras))
    with pytest.raises(InputError, match="too small"):
        appearance(Volume(mottled(grid)[:6], grid.ijk_to_ras))


@pytest.mark.skipif(not REAL.is_file(), reason="no real ultrasound of shared/data here")
def test_real_speckle_is_finer_along_the_beam():
    """On a real fan the estimated beam points away from the bright band at the probe."""
    measured = appearance(Volume.read(REAL))
    assert measured.along_mm < 0.85 * measured.across_mm
    assert measured.profile[0] > 1.3 * np.nanmedian(measured.profile)
