"""Several training processes under ``torchrun``: equal weights, other data in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[int, int]]:
    """Join the group that ``torchrun`` announces; yields (rank, world size), (0, 1) without one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        dist.destroy_process_group()


def average(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one message."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([t.detach().flatten().float() for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for t in tensors:
        t.copy_(flat[start : start + t.numel()].view_as(t))
        start += t.numel()


def average_gradients(model: nn.Module) -> None:
    """Mean gradient over all processes; a parameter without a gradient counts as zero."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average([p.grad for p in model.parameters() if p.grad is not None])


def average_statistics(model: nn.Module) -> None:
    """Mean of the running statistics, which each process gathered on its own data."""
    average([b for b in model.buffers() if b.is_floating_point()])


def largest(value: float) -> float:
    """Largest ``value`` over all processes, so that all take the same decision."""
    if not dist.is_initialized():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)
