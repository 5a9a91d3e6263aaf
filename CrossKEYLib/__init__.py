"""CrossKEY: registration of intraoperative ultrasound to preoperative MRI of the brain.

    import CrossKEYLib as ck
    result = ck.register(ck.Volume.read("mr.nii.gz"), ck.Volume.read("us.nii.gz"))

World is RAS mm; `register` returns ``T_fixed_moving``, from iUS (moving) to MRI (fixed).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import RegisterConfig as RegisterConfig
    from .errors import CrossKEYError as CrossKEYError
    from .files import read_transform as read_transform
    from .files import write_transform as write_transform
    from .keypoints import Keypoints as Keypoints
    from .landmark_files import read_landmark_pairs as read_landmark_pairs
    from .model import Model as Model
    from .registration import Registration as Registration
    from .registration import register as register
    from .sift3d import detect as detect
    from .synthesis.anatomy import read_anatomy as read_anatomy
    from .synthesis.simulator import simulate as simulate
    from .training.prepare import prepare as prepare
    from .volume import Volume as Volume

__version__ = "0.1.0"

# Loaded on first use: torch takes a second to import, which `crosskey --help` need not wait for.
_HOMES = {
    "CrossKEYError": "errors",
    "Keypoints": "keypoints",
    "Model": "model",
    "RegisterConfig": "config",
    "Registration": "registration",
    "Volume": "volume",
    "detect": "sift3d",
    "prepare": "training.prepare",
    "read_anatomy": "synthesis.anatomy",
    "read_landmark_pairs": "landmark_files",
    "read_transform": "files",
    "register": "registration",
    "simulate": "synthesis.simulator",
    "write_transform": "files",
}
__all__ = [
    "CrossKEYError",
    "Keypoints",
    "Model",
    "RegisterConfig",
    "Registration",
    "Volume",
    "__version__",
    "detect",
    "prepare",
    "read_anatomy",
    "read_landmark_pairs",
    "read_transform",
    "register",
    "simulate",
    "write_transform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
