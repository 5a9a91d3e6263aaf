"""One process: nothing is averaged, nothing waits. Two processes are tried in test_loop.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from CrossKEYLib.errors import ModelError
from CrossKEYLib.training import distributed


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.join(torch.device("cpu")) == (0, 1)
    assert distributed.is_first()


def test_torchrun_says_who_is_first(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not distributed.is_first()


@pytest.mark.parametrize(
    ("asked", "local", "expected"),
    [
        ("cuda", "2", torch.device("cuda", 2)),
        ("cuda:1", "2", torch.device("cuda", 1)),
        ("cpu", "2", torch.device("cpu")),
        ("cuda", None, torch.device("cuda", 0)),
    ],
)
def test_each_process_gets_a_gpu_of_its_own(monkeypatch, asked, local, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert distributed.own_device(asked) == expected


def test_alone_means_stay_as_they_are():
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)]
    distributed.average(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[1.0, 2.0], 3.0]
    assert distributed.largest(-4.5) == -4.5
    distributed.check_together(7)


def test_a_parameter_without_gradient_counts_as_zero():
    """Else processes whose steps use different heads would average different lists."""
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    model["used"](torch.ones(1, 2)).sum().backward()
    distributed.average_gradients(model)
    assert model["used"].weight.grad.tolist() == [[1.0, 1.0]]
    assert model["idle"].weight.grad.tolist() == [[0.0, 0.0]]


def test_processes_at_different_steps_are_told(monkeypatch):
    monkeypatch.setattr(distributed, "largest", lambda value: value + 10)
    with pytest.raises(ModelError, match="start at step 5, another one at 15; put the checkpoint"):
        distributed.check_together(5)
