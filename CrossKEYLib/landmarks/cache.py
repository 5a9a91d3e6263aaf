"""Images embedded once and asked many times: what the worker keeps between two questions."""

from __future__ import annotations

from collections import OrderedDict

import torch

from ..descriptors.uae import Embedding
from ..geometry.volume import Volume
from ..models.patient import fingerprint
from ..models.universal import UniversalModel
from .propagate import EmbeddedPair, embedded_pair

_Key = tuple[str, torch.device]
KEPT = 4  # images; an embedded head takes about 100 MB


class EmbeddedImages:
    """Embeds with one model and remembers the last images and the last pair of them.

    An image is known by its samples and geometry, whatever its file is called.
    """

    def __init__(self, model: UniversalModel) -> None:
        self._model = model
        self._kept: OrderedDict[_Key, Embedding] = OrderedDict()
        self._pair: tuple[tuple[_Key, _Key], EmbeddedPair] | None = None

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
        """Both images in one orientation, ready to be asked.

        Raises:
            InputError: a volume is constant.
        """
        here, there = self.embed(from_volume), self.embed(to_volume)
        asked = (_key(from_volume), _key(to_volume))
        if self._pair is None or self._pair[0] != asked:
            pair = embedded_pair(from_volume, to_volume, self._model, here=here, there=there)
            self._pair = (asked, pair)
        return self._pair[1]


def _key(volume: Volume) -> _Key:
    return fingerprint(volume), volume.device
