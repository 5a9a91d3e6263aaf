"""Groups of options that several commands share: a dataclass in place of a list of parameters.

A command takes a group as one parameter; `grouped` gives typer the options of its fields instead.
Nothing heavy is imported at file scope.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from ..formats.options import Orientation, ReadOptions

if TYPE_CHECKING:
    import torch


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Group:
    """Base of the groups: dataclasses whose fields are options, each with a default."""


@dataclass(frozen=True)
class Machine(Group):
    """Where to compute."""

    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel="Machine")
    ] = "auto"
    threads: Annotated[
        int | None, typer.Option(help="Processor threads to use.", min=1, rich_help_panel="Machine")
    ] = None

    def pick(self) -> torch.device:
        """The torch device to compute on; also limits the threads.

        Raises:
            ModelError: the device is not there.
        """
        import torch

        from ..runtime.device import pick_device

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return pick_device(self.device)


@dataclass(frozen=True)
class Reading(Group):
    """What to read of inputs that offer a choice."""

    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            help="DICOM series of a folder that holds several: UID, number or name; repeat for "
            "both.",
            rich_help_panel="Input",
        ),
    ] = None
    frame: Annotated[
        int | None,
        typer.Option(help="Volume of a sequence, from 1.", min=1, rich_help_panel="Input"),
    ] = None
    orientation: Annotated[
        Orientation | None,
        typer.Option(help="Which to take where NIfTI states both.", rich_help_panel="Input"),
    ] = None

    def options(self) -> ReadOptions:
        return ReadOptions(tuple(self.series or ()), self.frame, self.orientation)


def grouped(function: Callable[..., int]) -> Callable[..., int]:
    """The command with the options of each group in place of the group."""
    signature = inspect.signature(function, eval_str=True)
    groups = {name: p.annotation for name, p in signature.parameters.items() if _is_group(p)}
    names = {name: [f.name for f in fields(kind)] for name, kind in groups.items()}

    @wraps(function)
    def command(**given: Any) -> int:
        for name, kind in groups.items():
            given[name] = kind(**{field: given.pop(field) for field in names[name]})
        return function(**given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += (
            _options(groups[name]) if name in groups else [parameter.replace(kind=_KEYWORD)]
        )
    changed = cast("Any", command)
    changed.__signature__ = signature.replace(parameters=parameters)
    changed.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    return command


def _is_group(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    return inspect.isclass(kind) and issubclass(kind, Group)


def _options(group: Any) -> list[inspect.Parameter]:
    """A parameter for each field."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name,
            _KEYWORD,
            default=f.default,
            annotation=hints[f.name],
        )
        for f in fields(group)
    ]
