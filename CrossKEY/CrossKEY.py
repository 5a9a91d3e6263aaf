"""CrossKEY in 3D Slicer: registration of intraoperative ultrasound to preoperative MRI.

This file only declares the module; what it does is in CrossKEYSlicer, and what it computes in
CrossKEYLib, which runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

HERE = Path(__file__).resolve().parent

# "Reload" runs this file again; what it imports must be read again as well.
for name in [name for name in sys.modules if name.split(".")[0] == "CrossKEYSlicer"]:
    del sys.modules[name]

# An installed extension has CrossKEYLib beside this file, a checkout one folder up.
if importlib.util.find_spec("CrossKEYLib") is None:
    sys.path.append(str(HERE.parent))

from CrossKEYSlicer.logic import CrossKEYLogic  # noqa: E402
from CrossKEYSlicer.panel.widget import CrossKEYWidget  # noqa: E402
from CrossKEYSlicer.samples import register_samples  # noqa: E402
from CrossKEYSlicer.selftest import CrossKEYTest  # noqa: E402

__all__ = ["CrossKEY", "CrossKEYLogic", "CrossKEYTest", "CrossKEYWidget"]


class CrossKEY(ScriptedLoadableModule):
    """Title, texts, and the sample case."""

    def __init__(self, parent: object) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "CrossKEY"
        # Slicer translates the names of categories in this context of its own.
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = []
        parent.contributors = ["CrossKEY for 3D Slicer contributors"]
        parent.helpText = _(
            "Registers an intraoperative ultrasound to a preoperative MRI of the brain. Choose "
            "both and press Register. Prepare, some minutes before surgery, trains a model "
            "for this patient. "
            "A result that cannot be trusted is refused, with reasons, and not applied. "
            "Landmarks finds points of one image in any other. "
            "Research software, not a medical device."
        )
        parent.acknowledgementText = _(
            "Method: Morozov, Dorent, Haouchine, IEEE TMI 2026, arXiv 2507.18551. Sample data made "
            "from Colin27 (Holmes et al., 1998)."
        )
        thumbnail = str(HERE / "Resources" / "Icons" / "CrossKEYCase.png")
        slicer.app.startupCompleted.connect(lambda: register_samples(thumbnail))
