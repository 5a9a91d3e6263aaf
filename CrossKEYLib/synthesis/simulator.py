"""Synthetic ultrasound: echo amplitude, beam, speckle, compression, in the probe's own frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from ..geometry import transform
from ..geometry.filters import gaussian, sample_channels
from ..geometry.volume import Volume
from .anatomy import Anatomy, gradient_magnitude, second_differences
from .deformation import Deformation
from .lesion import Lesion, draw_lesions, lesion_map
from .probe import Probe
from .style import Style

FOCUS_WIDTH_MM = 10.0  # Gaussian sigma, along the beam, of the focal zone
CLUTTER_MM = 0.8  # half width (Gaussian sigma) of lines that the MRI does not show
NEAR_MM = 2.0  # depth over which the bright band at the probe fades


@dataclass(frozen=True, eq=False)
class Simulation:
    """One synthetic volume, and its differences from the MRI.

    Attributes:
        volume: synthetic iUS in [0, 1], zero outside the field of view, in the coordinate system of
            the MRI, up to the deformation.
        lesions: spots and tumours that the MRI must show as well.
        deformation: maps points of the volume to the MRI; None for the identity.
    """

    volume: Volume
    lesions: list[Lesion] = field(default_factory=list)
    deformation: Deformation | None = None

    def to_mri(self, points: torch.Tensor) -> torch.Tensor:
        """Points of the MRI that correspond to RAS ``points [..., 3]`` of the volume."""
        return points if self.deformation is None else self.deformation.to_mri(points)


def simulate(
    anatomy: Anatomy,
    generator: torch.Generator,
    *,
    probe: Probe | None = None,
    style: Style | None = None,
    deformation: Deformation | None = None,
    spacing_mm: float = 1.0,
) -> Simulation:
    """Simulate one tracked 3D ultrasound sweep over a brain.

    Scatterers of unit variance are weighted by the local echo amplitude and blurred by a
    beam-oriented point-spread function; the envelope is log-compressed. The grid is beam-aligned,
    so that the point-spread function separates along its axes.

    Args:
        anatomy: maps of one patient.
        generator: CPU generator; equal seeds give equal volumes.
        probe, style: drawn when missing.
        deformation: of that probe's sweep; none when missing.
        spacing_mm: of the result.
    """
    probe = probe or Probe.draw(anatomy, generator)
    style = style or Style.draw(generator)
    device = anatomy.maps.device
    grid = probe.grid(spacing_mm)
    noise = _Noise(generator, grid.shape, device, spacing_mm)
    shown = grid.points(device)
    points = shown if deformation is None else deformation.to_mri(shown)
    ras_to_ijk = transform.invert(anatomy.ijk_to_ras)
    contrast = int(torch.randint(len(anatomy.tissue), (), generator=generator))
    tissue = sample_channels(anatomy.tissue[contrast, None], ras_to_ijk, points)[0]
    sheets, fluid, vessels, brain = sample_channels(anatomy.maps, ras_to_ijk, points)
    view = probe.field_of_view(grid, generator, device)
    brain = _ragged(brain, noise)
    if style.shows_surroundings:
        tissue = torch.lerp(torch.full_like(tissue, style.surroundings), tissue, brain)
    else:
        view = view & (brain > 0.5)
    lesions = draw_lesions(points[view], style.blob_count, style.tumour_count, generator)
    tissue_echo = _tissue_echo(tissue, style, noise) * (1 - (1 - style.fluid_level) * fluid)
    bright = _interface_echo(sheets, fluid, style, noise) + style.vessel_gain * vessels
    spots = [lesion for lesion in lesions if not lesion.is_tumour]
    if spots:
        bright = bright + style.blob_gain * lesion_map(spots, points)
    for tumour in (lesion for lesion in lesions if lesion.is_tumour):
        tissue_echo, bright = _with_tumour(tumour, tissue_echo, bright, points, style)
    echo = tissue_echo + _drawn_out(bright, style, spacing_mm)
    image = _image(echo * _beam(style, noise, grid.shape, device), style, noise, spacing_mm)
    image = gaussian(image, style.softness_mm / spacing_mm)
    volume = Volume(torch.where(view, image, 0), grid.ijk_to_ras)
    return Simulation(volume, lesions, deformation)


class _Noise:
    """Random fields on one grid."""

    def __init__(
        self,
        generator: torch.Generator,
        shape: tuple[int, int, int],
        device: torch.device,
        spacing_mm: float,
    ) -> None:
        self.shape, self.spacing_mm = shape, spacing_mm
        if device.type == "cpu":
            self.generator = generator
        else:  # fields are drawn where they are used; the seed still comes from the caller
            seed = int(torch.randint(2**31, (), generator=generator))
            self.generator = torch.Generator(device).manual_seed(seed)

    def white(self, channels: int = 1) -> torch.Tensor:
        return torch.randn(
            channels, *self.shape, generator=self.generator, device=self.generator.device
        )

    def one(self) -> torch.Tensor:
        """A single normal number."""
        return torch.randn((), generator=self.generator, device=self.generator.device)

    def smooth(self, length_mm: float, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Unit-variance field that changes over about ``length_mm``."""
        shape = shape or self.shape
        coarse = [max(2, int(n * self.spacing_mm / length_mm) + 1) for n in shape]
        field = torch.randn(1, 1, *coarse, generator=self.generator, device=self.generator.device)
        mode = "trilinear" if len(shape) == 3 else "bilinear"
        return F.interpolate(field, shape, mode=mode, align_corners=True)[0, 0] * 1.4


def _ragged(brain: torch.Tensor, noise: _Noise) -> torch.Tensor:
    """Brain mask whose rim is displaced by some millimetres.

    A sweep never ends exactly at the rim of a brain mask. If both rims were equal, the encoder
    would only learn to match them.
    """
    soft = gaussian(brain, 4.0 / noise.spacing_mm)
    return torch.sigmoid(40 * (soft + 0.15 * noise.smooth(20) - 0.4 + 0.15 * noise.one()))


def _with_tumour(
    tumour: Lesion,
    tissue_echo: torch.Tensor,
    bright: torch.Tensor,
    points: torch.Tensor,
    style: Style,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Echo of tissue and of interfaces ``[K, J, I]`` with a tumour in their place; its border may
    be bright."""
    body, rim, core = tumour.parts(points)
    tissue_echo = torch.lerp(tissue_echo, torch.full_like(body, style.tumour_level), 0.9 * body)
    tissue_echo = torch.lerp(tissue_echo, torch.full_like(core, style.core_level), core)
    return tissue_echo, bright * (1 - 0.8 * body) + style.tumour_rim * rim


def _drawn_out(bright: torch.Tensor, style: Style, spacing_mm: float) -> torch.Tensor:
    """Bright interfaces ``[K, J, I]`` with the tails that reverberation leaves behind them."""
    if style.tail == 0:
        return bright
    depth = torch.arange(len(bright), device=bright.device) * spacing_mm
    behind = depth[:, None] - depth[None]
    weight = torch.where(behind > 0, torch.exp(-behind / style.tail_mm), 0) * spacing_mm
    tail = weight / style.tail_mm @ bright.flatten(1)
    return bright + style.tail * tail.view_as(bright)


def _tissue_echo(tissue: torch.Tensor, style: Style, noise: _Noise) -> torch.Tensor:
    """Scatter amplitude of tissue, about 1: a random curve of MRI intensity, slowly mottled."""
    curve = torch.tensor(style.tissue_curve, device=tissue.device)
    place = tissue.clamp(0, 1) * (len(curve) - 1)
    left = place.long().clamp_max(len(curve) - 2)
    echo = torch.lerp(curve[left], curve[left + 1], place - left)
    return echo * torch.exp(style.mottle * noise.smooth(12))


def _interface_echo(
    sheets: torch.Tensor, fluid: torch.Tensor, style: Style, noise: _Noise
) -> torch.Tensor:
    """Amplitude of thin fluid and of the walls of large fluid; sheets fade in and out."""
    # Pia and falx shine whatever the width of the fluid beside them, so strength saturates: with a
    # low level soon, with a high one hardly, as where only the deepest part of a sulcus is seen.
    strength = sheets.square() / (sheets.square() + style.sheet_level**2)
    fading = torch.exp(style.fading * noise.smooth(15) - 0.3)
    lines = style.sheet_gain * (strength * (1 + style.sheet_level**2) * fading)
    walls = style.wall_gain * gradient_magnitude(gaussian(fluid, 0.7))
    echo = (lines + walls) * _facing(sheets + fluid, style.angle_dependence)
    if style.clutter:
        echo = echo + style.clutter * style.sheet_gain * _clutter(noise)
    return echo


def _clutter(noise: _Noise) -> torch.Tensor:
    """Thin sheets in [0, 1] that the MRI does not show: small vessels, artefacts."""
    field = gaussian(noise.smooth(14), 2.0 / noise.spacing_mm)
    slope = gradient_magnitude(field) / noise.spacing_mm
    distance_mm = field / slope.clamp_min(1e-3)
    shown = torch.sigmoid(6 * (noise.smooth(18) - 0.7))
    return torch.exp(-0.5 * (distance_mm / CLUTTER_MM).square()) * shown


def _facing(structure: torch.Tensor, dependence: float) -> torch.Tensor:
    """Brightness factor of interfaces: 1 facing the beam, 1 - dependence along it.

    For a thin sheet the share of its curvature that lies along an axis is the squared cosine
    between that axis and its normal.
    """
    smooth = gaussian(structure, 1.0)
    along, *across = (second.abs() for second in second_differences(smooth))
    share = along / (along + across[0] + across[1] + 1e-4)  # axis 0 is depth, along the beam
    return 1 - dependence * (1 - share)


def _beam(
    style: Style, noise: _Noise, shape: tuple[int, int, int], device: torch.device
) -> torch.Tensor:
    """Gain along depth, uneven compensation, shadows, and the bright band at the probe."""
    k, j, i = shape
    depth = torch.linspace(0, 1, k, device=device)[:, None, None]
    gain = -style.attenuation * depth + 0.35 * noise.smooth(12, (k, 2))[:, :1, None]
    mm = depth * k * noise.spacing_mm
    gain = gain + style.focus * torch.exp(-0.5 * ((mm - style.focus_mm) / FOCUS_WIDTH_MM).square())
    if style.shadow:
        cast = (noise.smooth(10, (j, i)) - 0.5).clamp_min(0)
        gain = gain - style.shadow * cast[None] * (0.3 + depth)
    near = style.near_field * torch.exp(-mm / NEAR_MM)
    return torch.exp(gain) * (1 + near)


def _image(amplitude: torch.Tensor, style: Style, noise: _Noise, spacing_mm: float) -> torch.Tensor:
    """Speckle, beam spread and log compression; returns [0, 1]."""
    field = noise.white(2) * amplitude
    axial = style.axial_mm / spacing_mm
    near = style.lateral_mm / spacing_mm
    far = near * (1 + style.lateral_growth)
    depth = torch.linspace(0, 1, amplitude.shape[0], device=amplitude.device)[:, None, None]
    spread = torch.lerp(
        _blurred(field, [axial, near, near]), _blurred(field, [axial, far, far]), depth
    )
    envelope = spread.square().sum(0).sqrt() / np.sqrt(2)
    steady = gaussian(amplitude, [axial, near, near])
    envelope = torch.lerp(steady, envelope, style.speckle)
    envelope = envelope + style.noise * (0.3 + depth) * noise.white(2).square().sum(0).sqrt() / 2
    decibel = torch.log(envelope.clamp_min(1e-4))
    top = float(torch.quantile(decibel.flatten()[::7], 0.995))
    return ((decibel - top) / style.dynamic_range + 1).clamp(1e-3, 1) ** style.gamma


def _blurred(field: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    """Gaussian spread that keeps the variance of white noise at one."""
    gain = 1.0
    for sigma in sigmas:
        if sigma > 0.05:
            radius = int(np.ceil(3 * sigma))
            kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
            gain *= kernel.sum() / np.sqrt((kernel**2).sum())
    return gaussian(field, sigmas) * gain
