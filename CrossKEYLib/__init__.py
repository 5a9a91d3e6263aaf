"""CrossKEY: registration of intraoperative ultrasound to preoperative MRI of the brain.

    import CrossKEYLib as ck
    result = ck.register(ck.Volume.read("mr.nii.gz"), ck.Volume.read("us.nii.gz"))

World is RAS mm; `register` returns ``T_fixed_moving``, from iUS (moving) to MRI (fixed).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .runtime.threads import set_up_process

if TYPE_CHECKING:
    from .atlas import carry_labels as carry_labels
    from .config import RegisterConfig as RegisterConfig
    from .errors import CrossKEYError as CrossKEYError
    from .files import read_transform as read_transform
    from .files import write_transform as write_transform
    from .keypoints import Keypoints as Keypoints
    from .landmark_files import read_landmark_pairs as read_landmark_pairs
    from .landmarks import propagate as propagate
    from .landmarks import register_embedded as register_embedded
    from .landmarks import similarity_map as similarity_map
    from .model import Model as Model
    from .registration import Registration as Registration
    from .registration import register as register
    from .sift3d import detect as detect
    from .synthesis.anatomy import read_anatomy as read_anatomy
    from .synthesis.simulator import simulate as simulate
    from .training.prepare import prepare as prepare
    from .universal import UniversalModel as UniversalModel
    from .volume import Volume as Volume

__version__ = "0.1.0"

set_up_process()  # before torch is loaded

# Loaded on first use: torch takes a second to import, which `crosskey --help` need not wait for.
_HOMES = {
    "CrossKEYError": "errors",
    "Keypoints": "keypoints",
    "Model": "model",
    "RegisterConfig": "config",
    "Registration": "registration",
    "UniversalModel": "universal",
    "Volume": "volume",
    "carry_labels": "atlas",
    "detect": "sift3d",
    "prepare": "training.prepare",
    "propagate": "landmarks",
    "read_anatomy": "synthesis.anatomy",
    "read_landmark_pairs": "landmark_files",
    "read_transform": "files",
    "register": "registration",
    "register_embedded": "landmarks",
    "similarity_map": "landmarks",
    "simulate": "synthesis.simulator",
    "write_transform": "files",
}
__all__ = [
    "CrossKEYError",
    "Keypoints",
    "Model",
    "RegisterConfig",
    "Registration",
    "UniversalModel",
    "Volume",
    "__version__",
    "carry_labels",
    "detect",
    "prepare",
    "propagate",
    "read_anatomy",
    "read_landmark_pairs",
    "read_transform",
    "register",
    "register_embedded",
    "similarity_map",
    "simulate",
    "write_transform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
