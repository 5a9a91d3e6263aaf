"""Several training processes under ``torchrun``: equal weights, other data in each."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist
from torch import nn

from ..errors import ModelError


def join(device: torch.device) -> tuple[int, int]:
    """Join the group that ``torchrun`` announces, once for the life of this process.

    Returns:
        Rank and number of processes; (0, 1) without ``torchrun``.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():  # joining anew after leaving waits for ever
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return dist.get_rank(), world


def _leave() -> None:
    """Leave together: a process whose peers are still in the group may be aborted at its exit."""
    dist.barrier()
    dist.destroy_process_group()


def own_device(device: torch.device | str) -> torch.device:
    """The device for this process: under ``torchrun``, "cuda" means a GPU of its own."""
    device = torch.device(device)
    # PyTorch declares the index an int, although it may be missing.
    if device.type == "cuda" and device.index is None:  # pyright: ignore[reportUnnecessaryComparison]
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def is_first() -> bool:
    """Whether this process is the one that writes files, also before it joins."""
    return int(os.environ.get("RANK", "0")) == 0


def check_together(step: int) -> None:
    """Refuse to start where the processes do not stand at the same step.

    Raises:
        ModelError: this process found no checkpoint, or an older one than another process.
    """
    latest = largest(step)
    if step != latest:
        raise ModelError(
            f"this process would start at step {step}, another one at {latest:.0f}; "
            "put the checkpoint where all processes can read it"
        )


def same_start(model: nn.Module) -> None:
    """Give every process the first one's weights and statistics."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            message = tensor.contiguous()  # weights may lie channels last
            dist.broadcast(message, 0)
            tensor.copy_(message)


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
