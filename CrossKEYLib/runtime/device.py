"""The device that computes."""

from __future__ import annotations

import torch

from ..errors import ModelError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA, else the CPU.

    Raises:
        ModelError: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(name.split(":")[0], False):
        raise ModelError(f"device {name!r} is not available here; use auto or cpu")
    return torch.device(name)
