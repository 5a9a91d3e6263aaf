from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import torch

from CrossKEYLib.synthesis.style import Style


def drawn(count: int = 300) -> list[Style]:
    source = torch.Generator().manual_seed(0)
    return [Style.draw(source) for _ in range(count)]


def test_equal_seeds_give_equal_styles():
    a, b, c = (Style.draw(torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert a == b
    assert a != c


def test_every_choice_varies_and_stays_physical():
    styles = [asdict(style) for style in drawn()]
    for field in fields(Style):
        values = np.array([style[field.name] for style in styles], dtype=float)
        assert values.std() > 0, field.name
        if field.name != "attenuation":  # over-compensated gain brightens the depth
            assert values.min() >= 0, field.name
    for share in ("fluid_level", "angle_dependence", "speckle", "surroundings"):
        assert max(style[share] for style in styles) <= 1, share
    for positive in (
        "axial_mm",
        "lateral_mm",
        "dynamic_range",
        "gamma",
        "sheet_gain",
        "sheet_level",
    ):
        assert min(style[positive] for style in styles) > 0, positive


def test_sheets_outshine_tissue_and_fluid_is_darker():
    for style in drawn():
        assert style.sheet_gain > 2 * max(style.tissue_curve)
        assert style.fluid_level < 1


def test_clear_volumes_occur():
    """Volumes in which nothing hides the anatomy much, which independent draws hardly give."""
    clear = [s for s in drawn() if s.speckle < 0.3 and s.noise < 0.06 and s.shadow < 0.2]
    assert len(clear) > 300 / 20
