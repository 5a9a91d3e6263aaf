"""Saving and resuming: one file that is whole or absent, and never needs unpickling.

A training file holds weights, optimiser and step. Each step draws from generators of its own,
seeded by (seed, step, process), so a run that is resumed gives the same result bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError, ModelError
from .atomic import whole
from .weights import load_state, read_weights

TRAINING = "crosskey-training"  # to go on from
MODEL = "crosskey-model"  # to register with

FORMAT = 1
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """Content of a model file.

    Attributes:
        kind: `TRAINING` or `MODEL`.
        config: what the network was built with, plain values.
        weights: its state dict, on the CPU.
        step: optimiser steps done.
        extra: what else was given to `save_checkpoint`.
    """

    kind: str
    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    step: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def checkpoint_beside(output: Path) -> Path:
    """Where an interrupted run that makes ``output`` left off."""
    return output.with_suffix(".training.pt")


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    config: Mapping[str, Any],
    kind: str = TRAINING,
    optimizer: torch.optim.Optimizer | None = None,
    step: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; whatever interrupts this, the file before it stays as it was.

    Args:
        path: where; written beside and renamed, see `atomic.whole`.
        model: its state dict is saved.
        config: plain values (also nested), enough to build the network again.
        kind: `TRAINING`, or `MODEL` for a file to register with.
        optimizer: saved with its class name.
        step: optimiser steps done.
        extra: further plain values and tensors.

    Raises:
        InputError: the file cannot be written.
        TypeError: a value that is no plain type, since it could not be read back safely.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "config": _plain(dict(config), "config"),
        "weights": dict(model.state_dict()),
        "step": int(step),
        "extra": _plain(dict(extra or {}), "extra"),
    }
    if optimizer is not None:
        content["optimizer"] = {
            "class": type(optimizer).__name__,
            "state": _plain(optimizer.state_dict(), "optimizer"),
        }
    _write(path, content)


def load_checkpoint(
    path: str | os.PathLike[str],
    kind: str = TRAINING,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Checkpoint:
    """Read a checkpoint, and put its state into whatever is given.

    Args:
        path: file written by `save_checkpoint`.
        kind: the kind it must be.
        model: receives the weights.
        optimizer: receives its state.

    Raises:
        ModelError: unreadable file, wrong kind, or content that does not fit what is given.
    """
    content = _checked(path, kind)
    if model is not None:
        load_state(model, content["weights"], path)
    if optimizer is not None:
        _restore_optimizer(optimizer, content.get("optimizer"), path)
    return Checkpoint(
        kind, content["config"], content["weights"], content["step"], content["extra"]
    )


def _checked(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The file's content, once its kind, format and entries are as they must be."""
    content = read_weights(path)
    found = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise ModelError(f"{path} was not written by CrossKEY; expected a {kind} file")
    if found != kind:
        raise ModelError(f"{path} is a {found} file, expected a {kind} file; choose another file")
    if content.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {content.get('format')}, this version reads {FORMAT}; "
            "use the version that wrote it, or create it again"
        )
    expected = {"config": dict, "weights": dict, "step": int, "extra": dict}
    for key, type_ in expected.items():
        if not isinstance(content.get(key), type_):
            raise ModelError(f"{path} has no proper entry {key!r}; create the file again")
    return content


def _write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    try:
        with whole(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # what torch makes of a failed write
        raise InputError(f"cannot write {path}: the disk may be full; free some space") from error


def _plain(value: Any, where: str) -> Any:
    """The same value in types that load with ``weights_only``; NumPy numbers become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in PLAIN or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v, where) for v in value)
    raise TypeError(f"{where} holds a {type(value).__name__}; expected plain values and tensors")


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, saved: Any, path: str | os.PathLike[str]
) -> None:
    name = type(optimizer).__name__
    if not isinstance(saved, dict):
        raise ModelError(f"{path} holds no optimiser; it is not a file to resume from")
    if saved["class"] != name:
        raise ModelError(f"{path} holds the state of {saved['class']}, expected {name}")
    try:
        optimizer.load_state_dict(saved["state"])
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: the optimiser's state is for other parameters; start training afresh"
        ) from error
