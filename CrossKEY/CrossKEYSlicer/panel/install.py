"""PyTorch inside Slicer: looked for without importing it, installed only after a question."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import platform
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..logic import CrossKEYLogic
from ..problem import Cancelled, Problem
from ..work.job import Job, new_job

NEEDED = (2, 6)  # as pyproject.toml says; a test compares the two
TORCH = f">={NEEDED[0]}.{NEEDED[1]}"
NIBABEL = "nibabel>=5.3"  # reads NIfTI; Slicer does not bring it along
SHOWN = 100  # characters of a line; the Python console has all of it
DOWNLOAD = _("Download and install it now? It takes some minutes and up to 3 GB of disk.")


def installed_torch() -> str:
    """Version of the installed PyTorch; empty without one.

    From its metadata, as PyTorchUtils does: importing it would take seconds and is the worker's
    task, and a folder named torch that an uninstallation left behind is none.
    """
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def torch_lacking() -> str:
    """What is wrong with the installed PyTorch, in words; empty where it serves."""
    found, needed = installed_torch(), ".".join(map(str, NEEDED))
    if not found:
        return _("CrossKEY needs PyTorch, which is not installed in this Slicer yet.")
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or tuple(map(int, numbers.groups())) < NEEDED:
        text = _("CrossKEY needs PyTorch {needed} or newer; this Slicer has {found}.")
        return text.format(needed=needed, found=found)
    return ""


def check_computer() -> None:
    """
    Raises:
        Problem: there is no build of PyTorch for this Slicer, so nothing need be asked.
    """
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Problem(
            _(
                "PyTorch is no longer published for Slicer on macOS (the Intel build, which also "
                "runs on Apple silicon), so CrossKEY cannot compute here. Use Linux or Windows, or "
                "the command crosskey in a Python of your own."
            )
        )


def pytorch_extension() -> Any:
    """The logic of Slicer's PyTorch extension, which knows the build for this computer.

    Raises:
        Problem: the extension is not installed.
    """
    try:
        import PyTorchUtils
    except ImportError:
        raise Problem(
            _(
                "PyTorch is missing, and so is the extension that installs it. Open the "
                "Extensions Manager, install the extension 'PyTorch', restart Slicer, try again."
            )
        ) from None
    return PyTorchUtils.PyTorchUtilsLogic()


def ensure_torch(logic: CrossKEYLogic, ask: Callable[[str], bool]) -> None:
    """Install PyTorch if it is missing or too old, and nibabel, if the person agrees.

    The extension installs within Slicer and returns when that is done. Meanwhile it is the job of
    the logic: the panel shows it, and nothing else can be begun.

    Args:
        ask: puts a question, returns whether the answer was yes.

    Raises:
        Cancelled: the answer was no.
        Problem: it cannot be installed.
    """
    lacking = torch_lacking()
    if not lacking:
        _ensure_nibabel(ask)
        return
    check_computer()
    extension = pytorch_extension()
    if not ask(f"{lacking} {DOWNLOAD}"):
        raise Cancelled(_("Nothing was installed; CrossKEY cannot work without PyTorch."))
    try:
        with new_job("install") as job:
            logic.job = job
            _install(extension, logic, job)
    finally:
        logic.onChange()
    _ensure_nibabel(lambda question: True)  # part of what was agreed to


def _ensure_nibabel(ask: Callable[[str], bool]) -> None:
    if importlib.util.find_spec("nibabel") is not None:
        return
    question = _("CrossKEY needs the Python package nibabel (4 MB) to read NIfTI. Install it now?")
    if not ask(question):
        raise Cancelled(_("Nothing was installed; CrossKEY cannot work without nibabel."))
    try:
        slicer.util.pip_install(NIBABEL)
    except Exception as error:  # of whatever kind: no network, no space
        text = _("nibabel could not be installed; the Python console says more. {why}")
        raise Problem(text.format(why=error)) from error


def _install(extension: Any, logic: CrossKEYLogic, job: Job) -> None:
    def tell(text: str) -> None:
        job.stage = _("Installing PyTorch, Slicer may pause for minutes: {said}").format(said=text)
        logic.onChange()
        slicer.app.processEvents()

    said = Overheard(sys.stdout, tell)
    tell("...")
    try:
        with redirect_stdout(said):
            torch = extension.installTorch(askConfirmation=False, torchVersionRequirement=TORCH)
    except Exception as error:  # of whatever kind: no network, no space, no such version
        why = said.last or str(error)
        raise Problem(
            _("PyTorch could not be installed; the Python console says more. {why}").format(why=why)
        ) from error
    if torch is None:
        raise Problem(_("PyTorch could not be installed; the Python console says why."))
    if not job.running:
        raise Cancelled(job.message)
    job.end("done")


class Overheard(io.TextIOBase):
    """Passes on what the installer prints, and tells each line: it has no other way to say how far
    it is.
    """

    def __init__(self, stream: Any, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.last = ""
        self._stream, self._tell, self._rest = stream, tell, ""

    def write(self, text: str) -> int:
        self._stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.strip, lines)):
            self.last = line[:SHOWN]
            self._tell(self.last)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
