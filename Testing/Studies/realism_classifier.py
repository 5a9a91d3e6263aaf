"""How easily simulated ultrasound is told from real: a small network is trained to do so.

python -m Testing.Studies.realism_classifier --real US [US ...] --mri MR [MR ...]
    [--mri MR2 ...] [--count N] [--seed S] [--output out.json]

Each --mri names the contrasts of one patient. Both kinds are brought to one tone, as the encoder
sees them, and cut into cubes at 1 mm. The network learns from some volumes and is judged on others,
in folds until each volume was judged once; at an accuracy of 50 % it cannot tell them apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from CrossKEYLib.errors import CrossKEYError, InputError
from CrossKEYLib.formats.atomic import check_writable, write_json
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.filters import gaussian
from CrossKEYLib.geometry.intensity import gamma_normalised
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.runtime.allocator import keep_freed_memory

from .realism import draw

SPACING_MM = 1.0
SPECKLE_MM = 1.5  # Gaussian sigma that leaves anatomy, gain and profile, and no speckle
LEAST_FILLED = 0.9  # of a cube


@dataclass(frozen=True)
class ClassifierConfig:
    """Cubes, network and training."""

    cube_mm: int = 24
    cubes: int = 150  # per volume, at most
    folds: int = 4
    steps: int = 200
    batch: int = 48
    width: int = 12
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Verdict:
    """What the network could tell, on volumes that it had not seen.

    Attributes:
        accuracy: share of cubes named rightly, real and simulated counting the same.
        deviation: of that, over folds.
        real, simulated: the same for cubes of either kind.
        auc: chance that a simulated cube looks more simulated than a real one.
    """

    accuracy: float
    deviation: float
    real: float
    simulated: float
    auc: float


def cubes_of(volume: Volume, config: ClassifierConfig, seed: int, smooth: bool) -> torch.Tensor:
    """Random cubes ``[N, S, S, S]`` of a gamma-normalised volume that lie in its field of view.

    Args:
        volume: real or simulated ultrasound, zero outside its field of view.
        config: size and number.
        seed: of the places and of the axes: both kinds are interpolated alike.
        smooth: leave anatomy and gain alone (`SPECKLE_MM`).
    """
    shown, size = gamma_normalised(volume), config.cube_mm
    axes = transform.random_rigid(np.random.default_rng(seed), 0.0, 90.0, np.zeros(3))[:3, :3]
    grid = Grid.around(volume.corners_ras(), SPACING_MM, rotation=axes)
    array = shown.resample(grid).array
    filled = (array > 0).float()
    if smooth:
        array = gaussian(array, SPECKLE_MM) / gaussian(filled, SPECKLE_MM).clamp_min(1e-3) * filled
    if min(array.shape) < size:
        return array.new_zeros(0, size, size, size)
    share = F.avg_pool3d(filled[None], size, 1)[0]
    corners = (share >= LEAST_FILLED).nonzero()
    generator = torch.Generator().manual_seed(seed)
    chosen = corners[torch.randperm(len(corners), generator=generator)[: config.cubes]]
    span = torch.arange(size)
    k, j, i = (chosen[:, d, None] + span for d in range(3))
    return array[k[:, :, None, None], j[:, None, :, None], i[:, None, None, :]]


def judged(
    real: Sequence[torch.Tensor],
    simulated: Sequence[torch.Tensor],
    config: ClassifierConfig,
    seed: int = 0,
) -> Verdict:
    """Train and judge, fold by fold.

    Args:
        real, simulated: cubes ``[N, S, S, S]`` of each volume.
        config: network, training and folds.
        seed: of weights and batches.

    Raises:
        InputError: fewer volumes of a kind than folds.
    """
    for kind, volumes in (("real", real), ("simulated", simulated)):
        if len(volumes) < config.folds:
            raise InputError(
                f"{len(volumes)} {kind} volumes hold cubes of {config.cube_mm} mm; "
                f"at least {config.folds} are needed"
            )
    accuracies, scores = [], ([], [])
    for fold in range(config.folds):
        learned, asked = (
            [
                torch.cat([v for n, v in enumerate(kind) if (n % config.folds == fold) is out])
                for kind in (real, simulated)
            ]
            for out in (False, True)
        )
        network = _trained(learned[0], learned[1], config, seed + fold)
        with torch.inference_mode():
            found = [network(_shaped(part))[:, 0] for part in asked]
        right = [(found[0] < 0).float().mean(), (found[1] > 0).float().mean()]
        accuracies.append(float(right[0] + right[1]) / 2)
        for kept, values in zip(scores, found, strict=True):
            kept.append(values)
    on_real, on_simulated = (torch.cat(kept) for kept in scores)
    greater = (on_simulated[:, None] > on_real[None]).float().mean()
    return Verdict(
        float(np.mean(accuracies)),
        float(np.std(accuracies)),
        float((on_real < 0).float().mean()),
        float((on_simulated > 0).float().mean()),
        float(greater),
    )


def _trained(
    real: torch.Tensor, simulated: torch.Tensor, config: ClassifierConfig, seed: int
) -> nn.Module:
    """A network whose output is positive for simulated cubes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(config.width)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps
    )
    half = config.batch // 2
    target = torch.cat([torch.zeros(half), torch.ones(half)])
    for _ in range(config.steps):
        batch = torch.cat(
            [
                part[torch.randint(len(part), (half,), generator=generator)]
                for part in (real, simulated)
            ]
        )
        loss = F.binary_cross_entropy_with_logits(
            network(_shaped(_turned(batch, generator)))[:, 0], target
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _network(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for n in range(3):
        out = width * 2**n
        layers += [
            nn.Conv3d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm3d(out),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(2),
        ]
        channels = out
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, 1)
    )


def _shaped(cubes: torch.Tensor) -> torch.Tensor:
    return cubes[:, None].contiguous(memory_format=torch.channels_last_3d)


def _turned(cubes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch in another of the cube's orientations: how a volume lies in its file is no clue."""
    order = torch.randperm(3, generator=generator) + 1
    cubes = cubes.permute(0, *order.tolist())
    flipped = (torch.rand(3, generator=generator) < 0.5).nonzero()[:, 0] + 1
    return cubes.flip(flipped.tolist())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", nargs="+", type=Path, required=True)
    parser.add_argument("--mri", nargs="+", type=Path, action="append", required=True)
    parser.add_argument("--count", type=int, default=24, help="simulated volumes, over all MRI")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        if args.output is not None:
            check_writable(args.output)
        real = [Volume.read(path) for path in args.real]
        patients = [[Volume.read(path) for path in paths] for paths in args.mri]
        generator = torch.Generator().manual_seed(args.seed)
        made = [volume for volume, _ in draw(patients, args.count, generator)]
        config, found = ClassifierConfig(), {}
        for name, smooth in (("as the encoder sees it", False), ("without speckle", True)):
            kinds = []
            for volumes in (real, made):
                cut = [cubes_of(v, config, args.seed + n, smooth) for n, v in enumerate(volumes)]
                kinds.append([cubes for cubes in cut if len(cubes)])
            verdict = judged(kinds[0], kinds[1], config, args.seed)
            found[name] = asdict(verdict)
            print(
                f"{name}: accuracy {verdict.accuracy:.1%} ± {verdict.deviation:.1%} over "
                f"{config.folds} folds (real {verdict.real:.1%}, simulated "
                f"{verdict.simulated:.1%}), AUC {verdict.auc:.3f}"
            )
        if args.output is not None:
            write_json(found, args.output)
    except CrossKEYError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
