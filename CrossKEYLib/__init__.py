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
    from .errors import CrossKEYError as CrossKEYError
    from .formats.landmarks import read_landmark_pairs as read_landmark_pairs
    from .formats.transforms import read_transform as read_transform
    from .formats.transforms import write_transform as write_transform
    from .geometry.volume import Volume as Volume
    from .keypoints.keypoints import Keypoints as Keypoints
    from .keypoints.sift3d import detect as detect
    from .landmarks.atlas import carry_labels as carry_labels
    from .landmarks.embedding_registration import register_embedded as register_embedded
    from .landmarks.propagate import propagate as propagate
    from .landmarks.propagate import similarity_map as similarity_map
    from .models.patient import Model as Model
    from .models.universal import UniversalModel as UniversalModel
    from .registration.pipeline import Registration as Registration
    from .registration.pipeline import register as register
    from .synthesis.anatomy import read_anatomy as read_anatomy
    from .synthesis.simulator import simulate as simulate
    from .training.patient.prepare import prepare as prepare


set_up_process()  # before torch is loaded

# Loaded on first use: torch takes a second to import, which `crosskey --help` need not wait for.
_HOMES = {
    "CrossKEYError": "errors",
    "Keypoints": "keypoints.keypoints",
    "Model": "models.patient",
    "RegisterConfig": "config",
    "Registration": "registration.pipeline",
    "UniversalModel": "models.universal",
    "Volume": "geometry.volume",
    "carry_labels": "landmarks.atlas",
    "detect": "keypoints.sift3d",
    "prepare": "training.patient.prepare",
    "propagate": "landmarks.propagate",
    "read_anatomy": "synthesis.anatomy",
    "read_landmark_pairs": "formats.landmarks",
    "read_transform": "formats.transforms",
    "register": "registration.pipeline",
    "register_embedded": "landmarks.embedding_registration",
    "similarity_map": "landmarks.propagate",
    "simulate": "synthesis.simulator",
    "write_transform": "formats.transforms",
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
