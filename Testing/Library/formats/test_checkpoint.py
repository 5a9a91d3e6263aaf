"""A checkpoint is whole or absent, resumes bit for bit, and says what does not fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.checkpoint import (
    MODEL,
    TRAINING,
    load_checkpoint,
    save_checkpoint,
)

STEPS = 12


class Run:
    """A training of a linear layer; each step draws from a generator of its own."""

    def __init__(self, seed: int = 7) -> None:
        self.model = nn.Linear(4, 2)
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.done = 0

    def save(self, path: Path) -> None:
        save_checkpoint(
            path,
            self.model,
            {"width": 4},
            optimizer=self.optimizer,
            step=self.done,
            extra={"losses": [0.5]},
        )

    def resume(self, path: Path) -> None:
        self.done = load_checkpoint(path, TRAINING, self.model, self.optimizer).step

    def train(self, path: Path, after_step: Callable[[int], None] = lambda step: None) -> None:
        while self.done < STEPS:
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.done))
            self.optimizer.zero_grad()
            self.model(inputs).square().mean().backward()
            self.optimizer.step()
            self.done += 1
            self.save(path)
            after_step(self.done)


def final_weights(run: Run) -> torch.Tensor:
    return nn.utils.parameters_to_vector(run.model.parameters()).detach()


@pytest.fixture
def uninterrupted(tmp_path: Path) -> torch.Tensor:
    run = Run()
    run.train(tmp_path / "whole.pt")
    return final_weights(run)


class Killed(BaseException):
    """Stops everything, as a kill would."""


@pytest.mark.parametrize("moment", ["torch.save", "half written", "fsync", "replace", "between"])
def test_resumed_training_is_bit_equal_whenever_it_was_killed(
    tmp_path: Path, uninterrupted: torch.Tensor, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run, calls = tmp_path / "run.pt", Run(), {"count": 0}

    def kill_at_fifth(original: Callable[..., object], partly: bool = False):
        def replacement(*args: object, **kwargs: object) -> object:
            calls["count"] += 1
            if calls["count"] == 5:
                if partly:
                    args[1].write(b"PK\x03\x04 half a file")  # type: ignore[attr-defined]
                raise Killed
            return original(*args, **kwargs)

        return replacement

    def between(step: int) -> None:
        if step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        if moment in ("torch.save", "half written"):
            patch.setattr(torch, "save", kill_at_fifth(torch.save, moment == "half written"))
        elif moment == "fsync":
            patch.setattr(os, "fsync", kill_at_fifth(os.fsync))
        elif moment == "replace":
            patch.setattr(os, "replace", kill_at_fifth(os.replace))
        with pytest.raises(Killed):
            run.train(path, between if moment == "between" else lambda step: None)
    resumed = Run(seed=99)  # the weights with which a new process starts do not matter
    resumed.resume(path)
    assert 0 < resumed.done <= 5
    resumed.train(path)
    assert torch.equal(final_weights(resumed), uninterrupted)
    assert {p.name for p in tmp_path.iterdir()} == {"run.pt", "whole.pt"}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_real_kill_in_the_middle_of_writing_keeps_the_last_checkpoint(
    tmp_path: Path, uninterrupted: torch.Tensor
) -> None:
    code = (
        "import os, signal, sys, pathlib; sys.path[:0] = sys.argv[2:]; import test_checkpoint as t;"
        "saves = []; sync = os.fsync;"
        "os.fsync = lambda h: saves.append(h) or (os.kill(os.getpid(), signal.SIGKILL)"
        " if len(saves) == 5 else sync(h));"
        "t.Run().train(pathlib.Path(sys.argv[1]))"
    )
    path, here = tmp_path / "run.pt", Path(__file__).parent
    child = subprocess.run(
        [sys.executable, "-c", code, str(path), str(here), str(here.parents[2])], check=False
    )
    assert child.returncode == -signal.SIGKILL
    resumed = Run()
    resumed.resume(path)
    assert resumed.done == 4  # the kill came before the fifth rename
    resumed.train(path)
    assert torch.equal(final_weights(resumed), uninterrupted)


def test_content_comes_back(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    config = {"width": np.int64(16), "spacing": np.float64(0.5), "axes": "SAR", "none": None}
    save_checkpoint(tmp_path / "m.pt", model, config, MODEL, step=7, extra={"mean": torch.ones(2)})
    loaded = load_checkpoint(tmp_path / "m.pt", MODEL)
    assert (loaded.kind, loaded.step) == (MODEL, 7)
    assert loaded.config == {"width": 16, "spacing": 0.5, "axes": "SAR", "none": None}
    torch.testing.assert_close(loaded.extra["mean"], torch.ones(2))
    fresh = nn.Linear(3, 2)
    load_checkpoint(tmp_path / "m.pt", MODEL, fresh)
    torch.testing.assert_close(fresh.weight, model.weight, rtol=0, atol=0)


def test_values_that_could_not_be_read_back_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"config\.folder holds a \w*Path"):
        save_checkpoint(tmp_path / "m.pt", nn.Linear(1, 1), {"folder": tmp_path})
    assert list(tmp_path.iterdir()) == []


def refusal(path: Path, *args: object, **kwargs: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path, *args, **kwargs)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


def test_wrong_kinds_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, nn.Linear(1, 1), {}, MODEL)
    text = refusal(path, TRAINING)
    assert MODEL in text
    assert TRAINING in text
    torch.save({"state_dict": {}}, path)
    assert "not written by CrossKEY" in refusal(path, MODEL)
    torch.save(torch.ones(2), path)
    assert "not written by CrossKEY" in refusal(path, MODEL)
    torch.save({"kind": MODEL, "format": 99}, path)
    assert "format 99" in refusal(path, MODEL)
    torch.save({"kind": MODEL, "format": 1, "config": {}}, path)
    assert "'weights'" in refusal(path, MODEL)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    assert "no model file" in refusal(path)
    Run().save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read" in refusal(path)


def test_misfits_name_what_differs(tmp_path: Path) -> None:
    path, run = tmp_path / "m.pt", Run()
    run.train(path)
    text = refusal(path, TRAINING, nn.Linear(4, 3))
    assert all(word in text for word in ("weight", "(2, 4)", "(3, 4)"))
    sgd = torch.optim.SGD(run.model.parameters(), lr=0.1)
    assert "AdamW, expected SGD" in refusal(path, TRAINING, run.model, sgd)
    fewer = torch.optim.AdamW([run.model.weight])
    assert "other parameters" in refusal(path, TRAINING, run.model, fewer)
    save_checkpoint(path, run.model, {})
    assert "no optimiser" in refusal(path, TRAINING, run.model, run.optimizer)


def test_a_full_disk_leaves_the_old_file_and_one_clear_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs file size limits")
    path, run = tmp_path / "m.pt", Run()
    run.save(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run.done = 5
    for limit in (0, 500, len(before) - 1):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(InputError, match="cannot write") as caught:
                run.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        Run().save(tmp_path / "absent" / "m.pt")
