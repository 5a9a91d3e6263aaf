"""A model file: an encoder, and for a patient's model the described points of their MRI."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import DenseConfig, ResNetConfig, from_mapping
from ..descriptors.dense import DenseEncoder
from ..descriptors.resnet import ResNetDescriptor, load_published
from ..errors import InputError, ModelError
from ..formats.checkpoint import MODEL, load_checkpoint, save_checkpoint
from ..formats.weights import load_state
from ..geometry.volume import Volume
from ..keypoints.sampling import fixed_points
from ..runtime.resources import resource
from .described import Described

GENERAL = "Models/crosskey-general.pt"
MIN_POINTS = 200
Encoder = DenseEncoder | ResNetDescriptor


@dataclass(frozen=True, eq=False)
class Model:
    """Describes the points of a registration.

    Attributes:
        encoder: the network, in evaluation mode.
        name: shown in reports.
        mri: fingerprints of the MRI that it was prepared for; empty for a general model.
        described: points of that MRI with their descriptors; None for a general model.
        history: how it was trained, plain values.
    """

    encoder: Encoder
    name: str
    mri: tuple[str, ...] = ()
    described: Described | None = None
    history: dict[str, float | int | str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> Model:
        """Read a model; the bundled general one without a path.

        A checkpoint of the published code (PyTorch or Lightning) is accepted too.

        Raises:
            ModelError: unreadable, not a model, or of the wrong kind.
        """
        path = resource(GENERAL) if path is None else Path(path)
        if path.suffix in (".ckpt", ".pth"):
            return cls(load_published(path), path.stem)
        saved = load_checkpoint(path, MODEL)
        encoder = build_encoder(saved.config)
        load_state(
            encoder,
            {k: v.float() if v.is_floating_point() else v for k, v in saved.weights.items()},
            path,
        )
        extra = saved.extra
        described = None
        if "points" in extra:
            described = Described(extra["points"], extra["descriptors"].float())
        return cls(encoder.eval(), extra["name"], tuple(extra["mri"]), described, extra["history"])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model, weights and descriptors in half precision (it halves the file).

        Raises:
            InputError: the file cannot be written.
        """
        extra: dict[str, Any] = {"name": self.name, "mri": list(self.mri), "history": self.history}
        if self.described is not None:
            extra["points"] = self.described.points.cpu()
            extra["descriptors"] = self.described.descriptors.half().cpu()
        halved = build_encoder(encoder_config(self.encoder)).half()
        halved.load_state_dict(self.encoder.state_dict())
        save_checkpoint(path, halved, encoder_config(self.encoder), MODEL, extra=extra)

    def to(self, device: torch.device | str) -> Model:
        described = self.described
        if described is not None:
            described = Described(described.points.to(device), described.descriptors.to(device))
        return replace(self, encoder=self.encoder.to(device), described=described)

    def check_belongs_to(self, mri: Volume) -> None:
        """Refuse a patient's model for another patient's MRI.

        Raises:
            ModelError: the model was prepared for another MRI.
        """
        if self.mri and fingerprint(mri) not in self.mri:
            raise ModelError(
                f"the model {self.name!r} was prepared for another MRI than the one given; "
                "run prepare on this MRI, or leave the model out"
            )

    def describe(
        self,
        volume: Volume,
        points: torch.Tensor,
        modality: str,
        rotation: np.ndarray | None = None,
        report: Callable[[int, int], None] | None = None,
    ) -> Described:
        """Describe RAS ``points [N, 3]`` of a volume scaled to [0, 1].

        Args:
            volume: see `intensity.rescaled`.
            points: RAS mm.
            modality: "mri" or "ius".
            rotation: 3x3, columns = the axes (in RAS) of the grid that the network sees.
            report: called by a patch network with the number of patches that are described, and of
                all.
        """
        if isinstance(self.encoder, DenseEncoder):
            return Described(points, self.encoder.describe(volume, points, modality, rotation))
        turn = None if rotation is None else torch.as_tensor(rotation, dtype=torch.float32)
        described = self.encoder.describe(volume, points, turn, modality, report=report)
        return Described(points, described)

    @property
    def describes_patches(self) -> bool:
        """Whether the network processes points one by one, so that few are affordable."""
        return isinstance(self.encoder, ResNetDescriptor)


def describe_brain(model: Model, mri: Volume, brain: Volume) -> Described:
    """Described points of a grid in the brain.

    Args:
        mri: scaled to [0, 1].
        brain: mask, on any grid in the MRI's world.

    Raises:
        InputError: there is too little brain.
    """
    points = fixed_points(brain)
    if len(points) < MIN_POINTS:
        raise InputError("the MRI shows too little brain to register to; is it a brain MRI?")
    return model.describe(mri, points, "mri")


def fingerprint(volume: Volume) -> str:
    """SHA-256 of an image's samples and geometry, the same for every file format."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.array.cpu().numpy()).tobytes())
    digest.update(np.round(volume.ijk_to_ras, 4).astype("<f4").tobytes())
    return digest.hexdigest()


def fingerprints(volumes: Sequence[Volume]) -> tuple[str, ...]:
    return tuple(fingerprint(volume) for volume in volumes)


def encoder_config(encoder: Encoder) -> dict[str, float | int | str]:
    """Plain values from which `build_encoder` makes the same architecture."""
    kind = "dense" if isinstance(encoder, DenseEncoder) else "resnet"
    return {"architecture": kind, **asdict(encoder.config)}


def build_encoder(config: dict[str, float | int | str]) -> Encoder:
    """An untrained encoder.

    Raises:
        ModelError: unknown architecture.
        InputError: unknown settings.
    """
    values = dict(config)
    kind = values.pop("architecture", None)
    if kind == "dense":
        return DenseEncoder(from_mapping(DenseConfig, values, "encoder"))
    if kind == "resnet":
        return ResNetDescriptor(from_mapping(ResNetConfig, values, "encoder"))
    raise ModelError(f"unknown architecture {kind!r}: expected 'dense' or 'resnet'")
