"""The other methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...config import Settings
from ...geometry.transform import Matrix
from ...geometry.volume import Volume
from . import ants, convex_adam, elastix, lc2, mind, mutual_information

Register = Callable[[Volume, Volume, int], Matrix]  # MRI, iUS, seed -> T_fixed_moving, RAS mm


@dataclass(frozen=True)
class Peer:
    """One method.

    Attributes:
        register: the function that registers.
        config: its settings, the default ones.
        check: raises InputError, with the command that installs it, when a package is missing.
    """

    register: Register
    config: Settings
    check: Callable[[], object] = lambda: None


PEERS: Mapping[str, Peer] = {
    "mi": Peer(mutual_information.register, mutual_information.MutualInformationConfig()),
    "elastix": Peer(elastix.register, elastix.ElastixConfig(), elastix.package),
    "ants": Peer(ants.register, ants.AntsConfig(), ants.package),
    "lc2": Peer(lc2.register, lc2.Lc2Config()),
    "mind": Peer(mind.register, mind.MindConfig()),
    "convexadam": Peer(convex_adam.register, convex_adam.ConvexAdamConfig(), convex_adam.package),
}
