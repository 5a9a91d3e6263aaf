"""A model file of the universal anatomical embedding."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

from ..config import UAEConfig, from_mapping
from ..descriptors.uae import Embedding, UAENetwork, embed
from ..errors import ModelError
from ..formats.checkpoint import MODEL, load_checkpoint, save_checkpoint
from ..formats.weights import load_state
from ..geometry.volume import Volume
from ..runtime.resources import resource

BUNDLED = "Models/uae.pt"
ARCHITECTURE = "uae"


@dataclass(frozen=True, eq=False)
class UniversalModel:
    """The embedding network, ready to use.

    Attributes:
        network: in evaluation mode.
        name: shown in reports.
        history: how it was trained, plain values.
    """

    network: UAENetwork
    name: str
    history: dict[str, float | int | str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> UniversalModel:
        """Read a model; the bundled one without a path.

        Raises:
            InputError: there is no bundled one.
            ModelError: unreadable, not a model, or of another kind.
        """
        path = resource(BUNDLED) if path is None else Path(path)
        saved = load_checkpoint(path, MODEL)
        values = dict(saved.config)
        kind = values.pop("architecture", None)
        if kind != ARCHITECTURE:
            raise ModelError(
                f"{path} holds a {kind} encoder, expected a universal embedding (uae); "
                "choose a model made by crosskey pretrain --kind uae"
            )
        network = UAENetwork(from_mapping(UAEConfig, values, str(path)))
        weights = {k: v.float() if v.is_floating_point() else v for k, v in saved.weights.items()}
        load_state(network, weights, path)
        return cls(network.eval(), saved.extra["name"], saved.extra["history"])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model, weights in half precision.

        Raises:
            InputError: the file cannot be written.
        """
        config = asdict(self.network.config)
        halved = UAENetwork(self.network.config).half()
        halved.load_state_dict(self.network.state_dict())
        extra = {"name": self.name, "history": self.history}
        save_checkpoint(path, halved, {"architecture": ARCHITECTURE, **config}, MODEL, extra=extra)

    def to(self, device: object) -> UniversalModel:
        return UniversalModel(self.network.to(device), self.name, self.history)  # type: ignore[arg-type]

    def embed(self, volume: Volume) -> Embedding:
        """Embed a volume of any contrast and grid; see `uae.embed`."""
        return embed(self.network, volume)
