"""PyTorch inside Slicer: looked for without importing it, installed only after a question."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .problem import Cancelled, Problem

TORCH = ">=2.13"
QUESTION = _(
    "CrossKEY needs PyTorch, which is not installed in this Slicer yet. "
    "Download and install it now? It takes some minutes and up to 3 GB of disk."
)


def torch_missing() -> bool:
    """Importing it would take seconds and is the worker's task."""
    return importlib.util.find_spec("torch") is None


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


def ensure_torch(ask: Callable[[str], bool], tell: Callable[[str], None]) -> None:
    """Install PyTorch if it is missing and the person agrees.

    Args:
        ask: puts a question, returns whether the answer was yes.
        tell: shows what is going on.

    Raises:
        Cancelled: the answer was no.
        Problem: it cannot be installed.
    """
    if not torch_missing():
        return
    extension = pytorch_extension()
    if not ask(QUESTION):
        raise Cancelled(_("Nothing was installed; CrossKEY cannot work without PyTorch."))
    tell(_("Installing PyTorch; this takes some minutes ..."))
    if extension.installTorch(askConfirmation=False, torchVersionRequirement=TORCH) is None:
        raise Problem(_("PyTorch could not be installed; the Python console says why."))
