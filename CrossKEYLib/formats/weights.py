"""Reading model files without running anything in them, and filling networks from them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import ModelError

# Classes that training frameworks leave in a checkpoint beside its weights: settings and paths.
# They are never imported; an empty stand-in takes their place while the weights are read.
BYSTANDERS = (
    "argparse.Namespace",
    "functools.partial",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "typing.",
)


class _Ignored:
    """Takes any arguments and any state, and keeps and does nothing."""

    def __new__(cls, *args: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(path: str | PathLike[str]) -> Any:
    """Load a file written by ``torch.save`` onto the CPU, with ``weights_only=True`` always.

    Returns:
        What the file holds: tensors in plain containers.

    Raises:
        ModelError: the file is missing, damaged, no model file, or holds objects that could run
            code when loaded; those are not run.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no model file at {path}; check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        return _read_beside_bystanders(path)
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise _unreadable(path) from error


def load_state(
    module: nn.Module, state: Mapping[str, torch.Tensor], where: str | PathLike[str]
) -> None:
    """Copy ``state`` into ``module``; every entry must fit, batch counters may be absent.

    Raises:
        ModelError: a missing, unknown or differently shaped entry (its name and both shapes), or
            a weight that is not finite. The module is then unchanged.
    """
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in state and not key.endswith("num_batches_tracked"):
            raise ModelError(
                f"{where}: {key} is missing, expected shape {_shape(value)}; "
                "the file is for another network"
            )
    for key, value in state.items():
        if key not in expected:
            raise ModelError(
                f"{where}: unknown entry {key} of shape {_shape(value)}; "
                "the file is for another network"
            )
        if value.shape != expected[key].shape:
            raise ModelError(
                f"{where}: {key} has shape {_shape(value)}, expected {_shape(expected[key])}; "
                "the file is for another network"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"{where}: {key} holds values that are not finite; train it again")
    module.load_state_dict(state, strict=False)


def _read_beside_bystanders(path: Path) -> Any:
    """Second attempt, for a file whose only foreign objects are harmless bystanders."""
    if not zipfile.is_zipfile(path):
        raise _unreadable(path)
    try:
        foreign = sorted(get_unsafe_globals_in_checkpoint(path))
        refused = [name for name in foreign if not name.startswith(BYSTANDERS)]
        if not refused:
            with safe_globals([(_Ignored, name) for name in foreign]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise _unreadable(path) from error
    raise ModelError(
        f"{path} holds {refused[0]}, which is no weight and could run code, so it was not loaded; "
        "save the network's state_dict() alone"
    )


def _unreadable(path: Path) -> ModelError:
    return ModelError(
        f"{path} cannot be read as a model file (damaged, cut short or of another format); "
        "copy or create it again"
    )


def _shape(value: torch.Tensor) -> str:
    return str(tuple(value.shape))
