"""Short products: within the block alone, near enough to the full ones, and undone by errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from CrossKEYLib.runtime import precision
from CrossKEYLib.runtime.precision import short_products


def test_the_precision_is_that_of_before_when_the_block_ends():
    before = torch.get_float32_matmul_precision()
    with short_products():
        assert torch.get_float32_matmul_precision() in ("high", "medium")
    assert torch.get_float32_matmul_precision() == before


def test_an_error_within_the_block_undoes_it_too():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="broken"), short_products():
        raise RuntimeError("broken")
    assert torch.get_float32_matmul_precision() == before


def test_similarities_are_off_by_no_more_than_stated():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(500, 64, generator=generator), dim=1) for _ in range(2))
    with short_products():
        short = a @ b.T
    off = (short - (a.double() @ b.double().T)).std()
    assert off < 5e-4


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"amx_bf16": True}, "medium"),
        ({"avx512_bf16": True, "amx_bf16": False}, "medium"),
        ({"avx2": True}, "high"),
        (None, "high"),  # PyTorch that cannot tell
    ],
)
def test_bfloat16_is_used_only_where_the_processor_has_units_for_it(monkeypatch, units, expected):
    told = None if units is None else lambda: units
    monkeypatch.setattr(torch.cpu, "get_capabilities", told, raising=False)
    precision._has_bfloat16_units.cache_clear()
    try:
        with short_products():
            assert torch.get_float32_matmul_precision() == expected
    finally:
        precision._has_bfloat16_units.cache_clear()
