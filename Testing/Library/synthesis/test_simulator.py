from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms.heads import (
    BALL_MM,
    CENTRE,
    FLUID_BRIGHT,
    FLUID_DARK,
    ball,
    ball_distance,
    block,
    block_anatomy,
    clear_style,
    mottled,
    probe_above,
    sheet,
    sheet_distance,
)
from phantoms.volumes import ORIENTATIONS

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.synthesis.anatomy import Anatomy, read_anatomy
from CrossKEYLib.synthesis.deformation import Deformation
from CrossKEYLib.synthesis.lesion import lesion_map
from CrossKEYLib.synthesis.simulator import FOCUS_WIDTH_MM, Simulation, simulate
from CrossKEYLib.synthesis.style import Style
from Testing.Studies.appearance import half_width

FLUIDS = pytest.mark.parametrize("fluid", [FLUID_DARK, FLUID_BRIGHT], ids=["like T1", "like T2"])


@pytest.fixture(scope="module")
def sheet_anatomy() -> Anatomy:
    return block_anatomy(sheet(block()))


@pytest.fixture(scope="module")
def plain_anatomy() -> Anatomy:
    """Even tissue: all texture in the result is speckle."""
    grid = block()
    maps = torch.zeros(4, *grid.shape)
    maps[3] = 1
    return Anatomy(torch.full((1, *grid.shape), 0.5), maps, grid.ijk_to_ras, torch.zeros(0, 6))


def simulated(anatomy: Anatomy, seed: int = 0, axes=None, spacing=1.0, **style) -> Simulation:
    return simulate(
        anatomy,
        torch.Generator().manual_seed(seed),
        probe=probe_above(axes),
        style=clear_style(**style),
        spacing_mm=spacing,
    )


def seen(volume: Volume, margin_mm: float = 18.0) -> tuple[torch.Tensor, torch.Tensor]:
    """RAS points and intensities in the field of view, near the block's middle."""
    points = Grid.of(volume).points()
    near = (points - torch.tensor(CENTRE, dtype=torch.float32)).abs().amax(-1) < margin_mm
    near &= volume.array > 0
    return points[near], volume.array[near]


@FLUIDS
def test_thin_fluid_becomes_a_bright_line(fluid):
    points, value = seen(simulated(block_anatomy(sheet(block(), fluid))).volume)
    distance = sheet_distance(points)
    line, tissue = value[distance < 0.5], value[distance > 6]
    assert float(line.median()) > float(tissue.quantile(0.99))
    assert float(line.median()) > float(tissue.median()) + 0.25


@FLUIDS
def test_large_fluid_becomes_dark_with_a_bright_wall(fluid):
    points, value = seen(simulated(block_anatomy(ball(block(), fluid)), wall_gain=15.0).volume)
    distance = ball_distance(points)
    fluid_level = float(value[distance < BALL_MM - 5].median())
    wall = float(value[(distance - BALL_MM).abs() < 1].median())
    tissue = float(value[distance > BALL_MM + 5].median())
    assert fluid_level < tissue - 0.1
    assert wall > tissue + 0.1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_bright_line_lies_where_the_mri_has_the_sheet(orientation):
    """With full speckle, from any side, on any MRI grid: RAS mm is what counts."""
    linear = ORIENTATIONS[orientation] * (1.0, 1.25, 1.0)
    axes = ORIENTATIONS["oblique"] if orientation != "oblique" else np.eye(3)
    anatomy = block_anatomy(sheet(block(linear)))
    volume = simulated(anatomy, axes=axes, speckle=0.3).volume
    points, value = seen(volume)
    brightest = points[value >= value.quantile(0.98)]
    assert float(sheet_distance(brightest).quantile(0.95)) < 1.5
    assert float(sheet_distance(brightest.mean(0))) < 0.5


def test_equal_seeds_give_equal_volumes(sheet_anatomy):
    def drawn(seed: int) -> Simulation:
        generator = torch.Generator().manual_seed(seed)
        return simulate(sheet_anatomy, generator, probe=probe_above())

    a, b, c = drawn(3), drawn(3), drawn(4)
    assert torch.equal(a.volume.array, b.volume.array)
    assert [x.radius_mm for x in a.lesions] == [x.radius_mm for x in b.lesions]
    assert not torch.equal(a.volume.array, c.volume.array)


def test_values_and_field_of_view(sheet_anatomy):
    """Whatever is drawn: finite, 0 outside the field of view, above 0 within, at most 1."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        volume = simulate(sheet_anatomy, generator).volume
        assert bool(torch.isfinite(volume.array).all())
        assert 0 <= float(volume.array.min()) <= float(volume.array.max()) <= 1
        assert 0 < float((volume.array > 0).float().mean()) < 1
        assert np.allclose(volume.spacing_mm, 1.0)


@pytest.mark.parametrize("spacing", [0.7, 1.5])
def test_spacing_is_kept_and_changes_no_place(sheet_anatomy, spacing):
    volume = simulated(sheet_anatomy, spacing=spacing).volume
    assert np.allclose(volume.spacing_mm, spacing)
    points, value = seen(volume)
    brightest = points[value >= value.quantile(0.98)]
    assert float(sheet_distance(brightest).mean()) < 1.5


def test_spots_are_where_they_are_said_to_be(plain_anatomy):
    simulation = simulated(plain_anatomy, blob_count=40, blob_gain=6.0)
    assert len(simulation.lesions) == 40
    indicator = lesion_map(simulation.lesions, Grid.of(simulation.volume).points())
    inside = simulation.volume.array > 0
    value = simulation.volume.array
    assert float(value[inside & (indicator > 0.8)].median()) > 0.1 + float(
        value[inside & (indicator < 0.01)].median()
    )
    assert simulated(plain_anatomy).lesions == []


@pytest.mark.parametrize(("level", "brighter"), [(3.0, True), (0.3, False)])
def test_a_tumour_is_brighter_or_darker_than_tissue_as_its_style_says(
    plain_anatomy, level, brighter
):
    made = simulated(plain_anatomy, seed=4, tumour_count=1, tumour_level=level, core_level=level)
    (tumour,) = made.lesions
    depth = tumour.depth_mm(Grid.of(made.volume).points())
    value, shown = made.volume.array, made.volume.array > 0
    inside, outside = value[shown & (depth > 2)].median(), value[shown & (depth < -4)].median()
    assert bool(inside > outside + 0.05) == brighter
    assert bool(inside < outside - 0.05) != brighter


def test_echoes_are_drawn_out_behind_a_line_and_not_before_it(sheet_anatomy):
    plain, drawn = (simulated(sheet_anatomy, tail=tail, tail_mm=4.0).volume for tail in (0.0, 0.9))
    points, before = seen(plain)
    after = seen(drawn)[1]
    distance = sheet_distance(points)
    beam = torch.as_tensor(probe_above().local_to_ras[:3, 2], dtype=torch.float32)
    deeper = sheet_distance(points + 0.1 * beam) > distance
    near = (distance > 1.5) & (distance < 3.5)
    gain = after - before
    assert float(gain[near & deeper].mean()) > 0.1
    assert abs(float(gain[near & ~deeper].mean())) < 0.03


def test_lines_that_the_mri_does_not_show_are_drawn_on_request(plain_anatomy):
    for clutter, least, most in ((0.0, 0.0, 0.005), (1.0, 0.01, 0.5)):
        value = seen(simulated(plain_anatomy, clutter=clutter).volume)[1]
        share = float((value > value.median() + 0.2).float().mean())
        assert least <= share < most


def test_a_deformed_ultrasound_shows_tissue_where_its_deformation_says(sheet_anatomy):
    """A shift of 6 mm, and the sheet is found 6 mm beside; carried to the MRI it is in place."""
    grid = probe_above().grid(8.0)
    shift = torch.tensor([6.0, 6.0, 6.0])[:, None, None, None].expand(3, *grid.shape).contiguous()
    deformation = Deformation(shift, grid.ijk_to_ras)
    made = simulate(
        sheet_anatomy,
        torch.Generator().manual_seed(0),
        probe=probe_above(),
        style=clear_style(),
        deformation=deformation,
    )
    points, value = seen(made.volume, 12.0)
    brightest = points[value >= value.quantile(0.98)]
    assert float(sheet_distance(made.to_mri(brightest)).mean()) < 1.5
    assert float(sheet_distance(brightest).mean()) > 3


def lateral_width(image: torch.Tensor) -> float:
    """FWHM (samples) of the autocorrelation along i of speckle ``[K, J, I]``."""
    fine = (image - image.mean()).double()
    lags = [float((fine[..., : fine.shape[-1] - n] * fine[..., n:]).mean()) for n in range(8)]
    return half_width(np.array(lags) / lags[0], 1.0)


def middle(volume: Volume, start: int, stop: int) -> torch.Tensor:
    """Slab between two depths, well inside the field of view."""
    k, j, i = (slice(start, stop), *(slice(n // 2 - 12, n // 2 + 12) for n in volume.shape[1:]))
    return volume.array[k, j, i]


def test_speckle_grows_across_the_beam_with_depth(plain_anatomy):
    def near_and_far(growth: float) -> tuple[float, float]:
        volume = simulated(
            plain_anatomy, speckle=1.0, lateral_mm=0.9, lateral_growth=growth, dynamic_range=6.0
        ).volume
        return lateral_width(middle(volume, 6, 16)), lateral_width(middle(volume, 34, 44))

    near, far = near_and_far(1.0)
    assert far > 1.25 * near
    near, far = near_and_far(0.0)
    assert far == pytest.approx(near, rel=0.12)


def test_speckle_is_rayleigh_before_compression(plain_anatomy):
    """Fully developed speckle: the envelope's mean over deviation is sqrt(pi / (4 - pi))."""
    volume = simulated(plain_anatomy, speckle=1.0, dynamic_range=30.0).volume
    envelope = torch.exp(30 * (middle(volume, 6, 44) - 1))
    envelope = envelope / envelope.mean((1, 2), keepdim=True)  # the gain varies with depth
    assert float(envelope.mean() / envelope.std()) == pytest.approx(1.913, rel=0.06)


def test_near_field_and_attenuation(plain_anatomy):
    def profile(**style: float) -> torch.Tensor:
        return simulated(plain_anatomy, **style).volume.array[3:48, 15:25, 15:25].mean((1, 2))

    assert float(profile(near_field=6.0)[0]) > float(profile(near_field=6.0)[20]) + 0.1
    # The gain is uneven by chance, but equally so for equal seeds.
    loss = profile() - profile(attenuation=1.5)
    assert float(loss[-5:].mean()) > float(loss[:5].mean()) + 0.1


def test_the_focus_is_brighter(plain_anatomy):
    """By so much in the log amplitude, which is what is shown."""

    def profile(focus: float) -> torch.Tensor:
        style = {"focus": focus, "focus_mm": 25.0, "dynamic_range": 10.0}
        shown = simulated(plain_anatomy, **style).volume.array[3:48, 15:25, 15:25]
        return 10 * shown.mean((1, 2))

    gain = profile(1.0) - profile(0.0)
    depth = torch.arange(3.0, 48.0)
    expected = torch.exp(-0.5 * ((depth - 25) / FOCUS_WIDTH_MM).square())
    # The brightest voxels set the top of the scale, which rises with the gain.
    assert torch.allclose(gain - gain[-1], expected - expected[-1], atol=0.1)


def test_lines_along_the_beam_fade(sheet_anatomy):
    """A sheet facing the beam stays; one seen edge-on loses brightness."""
    normal = np.array([2.0, 1.0, 2.0]) / 3
    aside = np.array([1.0, 0.0, -1.0]) / np.sqrt(2)
    facing = np.stack([aside, np.cross(normal, aside), normal], 1)
    edge_on = facing[:, [1, 2, 0]]

    def line(axes: np.ndarray, dependence: float) -> float:
        points, value = seen(simulated(sheet_anatomy, 0, axes, angle_dependence=dependence).volume)
        distance = sheet_distance(points)
        return float(value[distance < 0.5].mean() - value[distance > 6].mean())

    assert line(facing, 0.9) > 0.8 * line(facing, 0.0)
    assert line(edge_on, 0.9) < 0.7 * line(edge_on, 0.0)


def test_several_styles_differ(sheet_anatomy):
    """The same probe and seed; only the style changes the picture, not the place."""
    pictures = [
        simulate(
            sheet_anatomy,
            torch.Generator().manual_seed(0),
            probe=probe_above(),
            style=Style.draw(torch.Generator().manual_seed(seed)),
        ).volume
        for seed in range(3)
    ]
    assert all(np.array_equal(p.ijk_to_ras, pictures[0].ijk_to_ras) for p in pictures)
    means = [float(p.array[p.array > 0].mean()) for p in pictures]
    assert len({round(mean, 3) for mean in means}) == 3


def test_constant_mri_is_refused():
    flat = Volume(torch.full((30, 30, 30), 7.0), np.eye(4))
    with pytest.raises(InputError, match="constant"):
        simulate(read_anatomy([flat]), torch.Generator())


def test_even_tissue_shows_no_line():
    """The control of the tests above: no sheet in the MRI, no sheet in the ultrasound."""
    grid = block()
    volume = simulated(block_anatomy(Volume(mottled(grid), grid.ijk_to_ras))).volume
    points, value = seen(volume)
    distance = sheet_distance(points)
    assert float((value[distance < 0.5].mean() - value[distance > 6].mean()).abs()) < 0.05
