"""Images embedded once and asked many times: what the worker keeps between two questions."""

from __future__ import annotations

from collections import OrderedDict

import torch

from ..descriptors.uae import Embedding
from ..geometry.volume import Volume
from ..models.patient import fingerprint
from ..models.universal import UniversalModel
from .propagate import EmbeddedPair

KEPT = 4  # images; an embedded head takes about 100 MB


class EmbeddedImages:
    """Embeds with one model and remembers the last images and the last pair of them.

    An image is known by its samples and geometry, whatever its file is called.
    """

    def __init__(self, model: UniversalModel) -> None:
        self._model = model
        self._kept: OrderedDict[tuple[str, torch.device], Embedding] = OrderedDict()
        self._pair: EmbeddedPair | None = None

    def knows(self, volume: Volume) -> bool:
        """Whether `embed` has nothing to compute."""
        return _key(volume) in self._kept

    def embed(self, volume: Volume) -> Embedding:
        """
        Raises:
            InputError: the volume is constant.
        """
        key = _key(volume)
        if key not in self._kept:
            self._kept[key] = self._model.to(volume.device).embed(volume)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def pair(self, from_volume: Volume, to_volume: Volume) -> EmbeddedPair:
        """Both images, ready to be asked.

        Raises:
            InputError: a volume is constant.
        """
        here, there = self.embed(from_volume), self.embed(to_volume)
        if self._pair is None or self._pair.here is not here or self._pair.there is not there:
            self._pair = EmbeddedPair(here, there)
        return self._pair


def _key(volume: Volume) -> tuple[str, torch.device]:
    return fingerprint(volume), volume.device
