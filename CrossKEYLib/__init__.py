"""CrossKEY: registration of intraoperative ultrasound to preoperative MRI of the brain.

    import CrossKEYLib as ck
    result = ck.register(ck.Volume.read("mr.nii.gz"), ck.Volume.read("us.nii.gz"))

World is RAS mm; `register` returns ``T_fixed_moving``, from iUS (moving) to MRI (fixed).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .runtime.threads import set_up_process
from .runtime.version import __version__

if TYPE_CHECKING:
    from .config import RegisterConfig as RegisterConfig
    from .geometry.volume import Volume as Volume
    from .landmarks.propagate import find_landmarks as find_landmarks
    from .models.patient import Model as Model
    from .models.universal import UniversalModel as UniversalModel
    from .registration.pipeline import register as register
    from .registration.result import Registration as Registration
    from .training.patient.prepare import prepare as prepare

set_up_process()  # before torch is loaded

# Loaded on first use: torch takes a second to import, which `crosskey --help` need not wait for.
_HOMES = {
    "Model": "models.patient",
    "RegisterConfig": "config",
    "Registration": "registration.result",
    "UniversalModel": "models.universal",
    "Volume": "geometry.volume",
    "find_landmarks": "landmarks.propagate",
    "prepare": "training.patient.prepare",
    "register": "registration.pipeline",
}
__all__ = [
    "Model",
    "RegisterConfig",
    "Registration",
    "UniversalModel",
    "Volume",
    "__version__",
    "find_landmarks",
    "prepare",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
