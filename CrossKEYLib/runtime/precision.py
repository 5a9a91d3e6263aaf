"""How precisely similarities are computed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def short_products() -> Generator[None, None, None]:
    """Inside the block, matrix products of float32 may round their factors: to bfloat16 where the
    processor has units for it, to TF32 on a GPU. That is several times faster.

    Use it for similarities of descriptors only. Their error is then 0.0003 (standard deviation);
    sums are still computed in float32. Coordinates would lose millimetres.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if _has_bfloat16_units() else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _has_bfloat16_units() -> bool:
    """Without them the processor would imitate bfloat16, slower than float32."""
    told = getattr(torch.cpu, "get_capabilities", None)
    if told is None:  # PyTorch 2.6, which Slicer may have: float32 is always right
        return False
    there = told()
    return bool(there.get("amx_bf16") or there.get("avx512_bf16"))
