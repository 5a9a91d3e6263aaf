"""Train the network of the brain mask on random images; stopped at any time, it goes on.

    python -m Testing.Studies.brain_mask.train --data ../shared/data --colin ch2.nii.gz \\
        --masks masks --output Resources/Models/brain-mask.pt

Several processes (``torchrun --nproc-per-node 3 -m ...`` in place of ``python -m``) draw images of
their own and average their weights after each block (local SGD: Stich, ICLR 2019).

``masks`` is filled by ``python -m Testing.Studies.brain_mask.teacher``. One thread; see
``Resources/Models/README.md`` for how long it took.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from CrossKEYLib.geometry.brain import STRIDE, BrainNet
from CrossKEYLib.training import distributed

from .drawn import draw, seeded, tone
from .heads import Head, read_heads

BLOCKS = 150
IMAGES = 6  # drawn for each block
USES = 3  # of each image, mirrored, cropped and in other tones: drawing costs more than learning
LEARNING_RATE = 2e-3
EVERY = 5  # blocks between checkpoints


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--colin", type=Path, help="ch2.nii.gz of mricron-data")
    options.add_argument("--masks", type=Path)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--blocks", type=int, default=BLOCKS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--mean-of", type=Path, nargs="+", help="checkpoints; nothing is trained")
    given = options.parse_args()
    if given.mean_of:
        write_mean(given.mean_of, given.output)
        return
    if not (given.data and given.colin and given.masks):
        options.error("--data, --colin and --masks are needed")
    torch.set_num_threads(1)
    heads = read_heads(given.data, given.colin, given.masks, "training")
    network = train(heads, given.blocks, given.seed, given.output.with_suffix(".checkpoint"))
    if not distributed.is_first():
        return
    half = {name: weight.contiguous().half() for name, weight in network.state_dict().items()}
    torch.save(half, given.output)


def write_mean(checkpoints: list[Path], output: Path) -> None:
    """Mean of the weights of several checkpoints (Izmailov et al., UAI 2018), half precision."""
    states = [torch.load(path, weights_only=True)["network"] for path in checkpoints]
    mean = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    torch.save({name: weight.contiguous().half() for name, weight in mean.items()}, output)


def train(heads: list[Head], blocks: int, seed: int, checkpoint: Path) -> BrainNet:
    """Train from where the checkpoint stands, or from random weights."""
    torch.manual_seed(seed)  # equal weights in every process
    rank, _ = distributed.join(torch.device("cpu"))
    network = BrainNet()
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    done, losses, start = 0, [], time.process_time()
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(stored["network"])
        optimiser.load_state_dict(stored["optimiser"])
        done = stored["done"]
    for block in range(done, blocks):
        rng = np.random.default_rng((seed, block, rank))
        images = [draw(heads, rng).seen() for _ in range(IMAGES)]
        for n, use in enumerate(rng.permutation(IMAGES * USES)):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * rate((block + n / (IMAGES * USES)) / blocks)
            loss = loss_of(network, *varied(*images[use % IMAGES], rng))
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            if bool(norm.isfinite()):  # half precision may overflow
                optimiser.step()
                losses.append(float(loss.detach()))
            optimiser.zero_grad(set_to_none=True)
        distributed.average([weight.data for weight in network.parameters()])
        if rank == 0 and ((block + 1) % EVERY == 0 or block + 1 == blocks):
            used = time.process_time() - start
            print(f"{block + 1} loss {np.mean(losses):.4f} core {used:.0f} s", flush=True)
            losses = []
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"done": block + 1}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return network


def varied(
    x: torch.Tensor, share: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same image mirrored, cropped, in another tone and noisier, each at random."""
    axes = [axis for axis, chance in ((-1, 0.5), (-2, 0.1), (-3, 0.1)) if rng.random() < chance]
    x, share = x.flip(axes), share.flip(axes)
    if rng.random() < 0.3:
        for axis in (-1, -2, -3):
            size = share.shape[axis]
            kept = int(rng.uniform(0.5, 1) * size)
            first = int(rng.integers(size - kept + 1))
            if kept >= 6:
                x, share = x.narrow(axis, first, kept), share.narrow(axis, first, kept)
    value, filled = x
    if rng.random() < 0.4:
        value = tone(value, rng)
    if rng.random() < 0.3:
        noise = torch.randn(value.shape, generator=seeded(rng))
        value = (value + rng.uniform(0, 0.06) * noise).abs()
    return torch.stack([value * (filled > 0), filled]), share


def rate(done: float) -> float:
    """Share of the learning rate: it rises over the first 20th and falls along a cosine."""
    return min(20 * done + 1e-3, 0.5 * (1 + math.cos(math.pi * done)) + 1e-3)


def loss_of(network: BrainNet, x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Cross entropy and soft Dice over the cells of the image."""
    k, j, i = share.shape
    wanted = [max(2, -(-size // STRIDE)) * STRIDE for size in share.shape]
    pad = [n for d in (2, 1, 0) for n in (0, wanted[d] - share.shape[d])]
    x = F.pad(x[None], pad).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)[0, :k, :j, :i]
    logits = logits.float()
    shown = logits.sigmoid()
    dice = (2 * (shown * share).sum() + 50) / (shown.sum() + share.sum() + 50)
    return F.binary_cross_entropy_with_logits(logits, share) + 0.5 * (1 - dice)


if __name__ == "__main__":
    main()
