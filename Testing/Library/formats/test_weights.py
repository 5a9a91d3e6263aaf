"""Model files are read without running anything in them; what does not fit is named."""

from __future__ import annotations

import functools
import gzip
import os
import pathlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from CrossKEYLib.errors import ModelError
from CrossKEYLib.formats.weights import load_state, read_weights


class Makes:
    """Pickles as a call that would create a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


class Executes(Makes):
    """The same by way of a built-in."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"import os; os.mkdir({str(self.folder)!r})",)


def test_tensors_in_plain_containers_come_back(tmp_path: Path) -> None:
    content = {"a": torch.arange(3), "b": [1, "x", {"c": None}]}
    torch.save(content, tmp_path / "plain.pt")
    result = read_weights(tmp_path / "plain.pt")
    assert result["b"] == content["b"]
    torch.testing.assert_close(result["a"], content["a"])


def test_settings_and_paths_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "framework.ckpt"
    bystanders = [pathlib.PurePosixPath("/data/run"), functools.partial(pathlib.PurePosixPath, "x")]
    torch.save({"state_dict": {"w": torch.ones(2)}, "hyper_parameters": bystanders}, path)
    torch.testing.assert_close(read_weights(path)["state_dict"]["w"], torch.ones(2))


@pytest.mark.parametrize("danger", [Makes, Executes])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, danger: type[Makes], zipped: bool
) -> None:
    target = tmp_path / "made"
    content = {"w": torch.ones(1), "p": pathlib.PurePosixPath("/x"), "evil": danger(target)}
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    if zipped:
        assert "could run code" in str(caught.value)
    assert pickle.dumps(content)  # the danger is real: only unpickling was avoided


def test_unreadable_files_give_one_clear_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"w": torch.ones(1000)}, whole)
    data = whole.read_bytes()
    files = {
        "cut.pt": data[: len(data) // 2],
        "empty.pt": b"",
        "text.pt": b"not a model\n" * 50,
        "image.nii.gz": gzip.compress(b"\0" * 5000),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"w": torch.ones(20)}, whole)
    data = whole.read_bytes()
    for length in range(0, len(data), 61):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_weights(cut)


@pytest.mark.parametrize("name", ["absent.pt", ""])
def test_missing_file_or_folder_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no model file"):
        read_weights(tmp_path / name)


def test_mismatches_name_the_entry_and_both_shapes() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    good = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    for state, words in [
        ({**good, "bias": torch.ones(5)}, ["bias", "(5,)", "(2,)"]),
        ({"weight": good["weight"]}, ["bias", "missing", "(2,)"]),
        ({**good, "other": torch.ones(4, 1)}, ["other", "unknown", "(4, 1)"]),
        ({**good, "bias": torch.tensor([1.0, torch.nan])}, ["bias", "finite"]),
    ]:
        with pytest.raises(ModelError) as caught:
            load_state(layer, state, "file.pt")
        assert all(word in str(caught.value) for word in ["file.pt", *words])
        torch.testing.assert_close(layer.weight.detach(), before)
    load_state(layer, good, "file.pt")
    torch.testing.assert_close(layer.weight.detach(), good["weight"])


def test_batch_counters_may_be_absent() -> None:
    norm = nn.BatchNorm3d(4)
    state = {k: v + 1 for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    load_state(norm, state, "file.pt")
    torch.testing.assert_close(norm.running_mean, torch.ones(4))
