"""The command ``crosskey``: subcommands, exit status, and messages of errors.

Exit status: 0 done and trusted, 1 a fault of the program, 2 bad input or usage (one line on
stderr, nothing written), 3 registration refused, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from .commands import benchmark, evaluate, images, landmark, register, train
from .commands.groups import grouped
from .errors import CrossKEYError, InputWarning
from .runtime.allocator import keep_freed_memory
from .runtime.version import __version__

FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130
DEBUG = "CROSSKEY_DEBUG"

app = typer.Typer(
    help="Registers intraoperative ultrasound of the brain to preoperative MRI.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (
    register.demo,
    train.prepare,
    register.register,
    images.keypoints,
    images.synthesize,
    landmark.landmark,
    evaluate.evaluate,
    train.train,
    train.pretrain,
    benchmark.benchmark,
):
    app.command()(grouped(function))
app.command("test")(grouped(train.run_test))


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options that stand before the subcommand."""
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; no exception leaves."""
    keep_freed_memory()
    with _interruptible() as interrupted, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stderr is for our own lines
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _caution
        try:
            status = app(args=arguments, prog_name="crosskey", standalone_mode=False)
        except (Exception, KeyboardInterrupt) as error:
            status = INTERRUPTED if interrupted else _explain(error)
    if interrupted or status == INTERRUPTED:
        _complain("interrupted")
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong; returns the exit status."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED
    if isinstance(error, CrossKEYError):
        _complain(str(error))
        return BAD_INPUT
    if hasattr(error, "format_message"):  # a usage error; its class differs between typer versions
        _complain(f"{error.format_message()} See crosskey --help.")  # type: ignore[attr-defined]
        return BAD_INPUT
    if isinstance(error, BrokenPipeError):  # the reader of the output, such as head, has ended
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return FAULT
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        _complain("not enough memory; close other programs, or use --device cpu")
        return FAULT
    _complain(f"internal error ({type(error).__name__}: {error}); set {DEBUG}=1 for the details")
    return FAULT


def _caution(message: Warning | str, *place: Any) -> None:
    """Prints an `InputWarning` without its position in the code; called by `warnings`."""
    _complain(f"warning: {message}")


def _complain(text: str) -> None:
    line = " ".join(text.split("\n"))
    print(f"crosskey: {line}", file=sys.stderr)


@contextmanager
def _interruptible() -> Generator[list[bool], None, None]:
    """Note Ctrl-C in the yielded list: libraries may turn the exception into another one."""
    pressed: list[bool] = []
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        pressed.append(True)
        raise KeyboardInterrupt

    ours = previous is signal.default_int_handler  # else the caller handles the signal
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, previous)
