"""The command behind `make gpu`: all of its numbers, and one file for each reader."""

from __future__ import annotations

import json

import pytest
import torch

from Testing.Studies import gpu

pytestmark = pytest.mark.gpu


def test_one_command_writes_numbers_and_a_table(monkeypatch, tmp_path, capsys) -> None:
    seen = []

    def figures(device: torch.device, size: gpu.Size) -> dict[str, float]:
        seen.append((device.type, size))
        return {"register warm, s": 0.51234, "prepare, steps/s": 12.0}

    monkeypatch.setattr(gpu, "figures", figures)
    output = tmp_path / "out"
    gpu.main(["--output", str(output), "--device", "cpu", "--small"])
    gpu.main(["--output", str(output), "--device", "cpu"])
    assert seen == [("cpu", gpu.SMALL), ("cpu", gpu.FULL)]
    content = json.loads((output / "gpu.json").read_text())
    assert content["figures"]["prepare, steps/s"] == 12
    assert content["machine"]["torch"] == torch.__version__
    assert "| register warm, s | 0.5123 |" in (output / "gpu.md").read_text()
    assert "| register warm, s | 0.5123 |" in capsys.readouterr().out


def test_reads_of_single_values_are_counted() -> None:
    values = torch.arange(5.0)
    cpu = torch.device("cpu")
    assert gpu.transfers(lambda: [float(v) for v in values], cpu) == 5
    assert gpu.transfers(lambda: values.sum(), cpu) == 0


def test_speed_of_training_leaves_out_its_beginning() -> None:
    clock = iter([9.0, 10.0, 10.5, 11.0])

    def run(report) -> None:
        for _ in range(4):
            report(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu.time, "perf_counter", lambda: next(clock))
        assert gpu._steps_a_second(run) == pytest.approx(2.0)
