"""Appearance of one synthetic ultrasound volume: random choices, drawn once a volume."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Style:
    """Brightness and texture of one volume; amplitudes are relative to mean healthy tissue."""

    tissue_curve: tuple[float, ...]  # echo amplitude at evenly spaced MRI intensities
    sheet_gain: float  # thin fluid sheets (sulci, falx)
    sheet_level: float  # strength of half the brightness: low shows faint ones, high crests only
    vessel_gain: float
    wall_gain: float  # rim of large fluid
    fluid_level: float  # share of the echo that large fluid keeps
    angle_dependence: float  # 0: lines equally bright at any angle, 1: specular
    fading: float  # how strongly sheets fade in and out (log amplitude)
    mottle: float  # slow brightness changes of tissue (log amplitude)
    shows_surroundings: bool  # speckle outside the brain, or nothing
    surroundings: float  # its MRI-like level
    blob_count: int  # bright spots that are also drawn into the MRI
    blob_gain: float
    attenuation: float  # log amplitude lost over the whole depth
    focus: float  # log amplitude gained where the beam is focused
    focus_mm: float  # depth of that
    shadow: float  # strength of shadows under the near surface
    near_field: float  # brightness of the band at the probe
    noise: float  # electronic noise, growing with depth
    axial_mm: float  # speckle size (Gaussian sigma) along the beam
    lateral_mm: float  # across the beam at the probe
    lateral_growth: float  # how much wider at full depth
    dynamic_range: float  # log amplitude shown
    gamma: float  # display curve after log compression
    speckle: float  # 1: fully developed, below: averaged
    tumour_count: int = 0  # that are drawn into both images
    tumour_level: float = 1.0  # echo amplitude of their tissue
    tumour_rim: float = 0.0  # brightness of their border
    core_level: float = 1.0  # echo amplitude of cyst or necrosis in them
    tail: float = 0.0  # echoes drawn out behind bright interfaces, share of their amplitude
    tail_mm: float = 2.0  # length over which such a tail fades
    clutter: float = 0.0  # lines that the MRI does not show, share of the brightness of sheets
    softness_mm: float = 0.0  # blur of the reconstructed volume (Gaussian sigma)

    @classmethod
    def draw(cls, generator: torch.Generator) -> Style:
        """Draw every choice from ranges that contain what real volumes show.

        Everything that hides anatomy (speckle, noise, shadows, fading) is scaled by one common
        factor, so that clear volumes occur as well as poor ones. With independent draws, nearly
        every volume would be poor in some respect.
        """

        def u(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def log_u(low: float, high: float) -> float:
            return math.exp(u(math.log(low), math.log(high)))

        poor = u(0.05, 1.0)
        return cls(
            tissue_curve=tuple(math.exp(u(-0.3, 0.3)) for _ in range(6)),
            sheet_gain=log_u(3, 25),
            sheet_level=log_u(0.8, 4),
            vessel_gain=u(0, 10) if u(0, 1) < 0.6 else 0.0,
            wall_gain=log_u(1, 8),
            fluid_level=u(0.1, 0.6),
            angle_dependence=poor * u(0.0, 0.9),
            fading=0.2 + poor * u(0.3, 1.2),
            mottle=poor * u(0.1, 0.5),
            shows_surroundings=u(0, 1) < 0.5,
            surroundings=u(0, 1),
            blob_count=int(u(0, 9)),
            blob_gain=u(1.5, 6),
            attenuation=poor * u(-0.5, 1.0),
            focus=u(0, 0.7),
            focus_mm=u(12, 35),
            shadow=poor * u(0, 1.5) if u(0, 1) < 0.6 else 0.0,
            near_field=u(1, 6) if u(0, 1) < 0.8 else 0.0,
            noise=0.01 + poor * u(0, 0.05),
            axial_mm=u(0.2, 0.35),
            lateral_mm=u(0.3, 0.6),
            lateral_growth=u(0.0, 1.0),
            dynamic_range=u(3.5, 7.0),
            gamma=u(0.8, 3.0),
            speckle=0.05 + poor * u(0, 0.4),
            tumour_count=1 if u(0, 1) < 0.35 else 0,
            tumour_level=log_u(0.5, 3),
            tumour_rim=u(0, 4),
            core_level=log_u(0.1, 1),
            tail=poor * u(0, 0.6) if u(0, 1) < 0.6 else 0.0,
            tail_mm=u(1, 5),
            clutter=poor * u(0, 0.6) if u(0, 1) < 0.5 else 0.0,
            softness_mm=u(0.2, 0.8) if u(0, 1) < 0.4 else 0.0,
        )
