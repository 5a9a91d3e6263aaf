"""Training is a function of its seed: whatever interrupts it, whoever shares the work."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantoms.training import SHORT, small_encoder, small_patient, weights_of

from CrossKEYLib.config import TrainConfig
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.training.loop import TIMING_STEPS
from CrossKEYLib.training.patient.pairs import draw_pairs
from CrossKEYLib.training.patient.train import train

HERE = Path(__file__).parents[1]


class Killed(BaseException):
    """Stands for whatever ends a run at once."""


def trained(config: TrainConfig = SHORT, **options) -> torch.Tensor:
    encoder = small_encoder()
    train(encoder, [small_patient()], config, **options)
    return weights_of(encoder)


@pytest.fixture(scope="module")
def uninterrupted() -> torch.Tensor:
    return trained()


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def test_the_seed_decides(uninterrupted):
    assert torch.equal(trained(), uninterrupted)
    assert not torch.equal(trained(seed=1), uninterrupted)
    assert not torch.equal(weights_of(small_encoder()), uninterrupted)


def test_training_teaches():
    """On the same pairs, each seen for the first time, the loss ends far below that of no steps."""
    losses = {}
    for rate in (0.0, 5e-3):
        seen: list[Progress] = []
        config = replace(SHORT, steps=30, learning_rate=rate, crop_mm=32.0, points=96)
        train(small_encoder(), [small_patient(48)], config, report=seen.append)
        losses[rate] = sum(progress.loss for progress in seen[-10:]) / 10
    assert losses[5e-3] < losses[0.0] - 0.4


def test_mri_comes_before_ultrasound(monkeypatch):
    drawn: list[bool] = []
    steps: list[bool] = []

    def draw(*given, **options):
        drawn.append(options.get("in_mri_tones", False))
        return draw_pairs(*given, **options)

    def report(progress: Progress) -> None:
        steps.append(drawn[-1])

    monkeypatch.setattr("CrossKEYLib.training.patient.train.draw_pairs", draw)
    train(small_encoder(), [small_patient()], replace(SHORT, mri_share=0.5), report=report)
    assert drawn[0] is False  # what is held out is ultrasound
    assert steps == [True, True, True, False, False, False]


def test_frozen_statistics_stay_as_they_were():
    encoder = small_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    train(encoder, [small_patient()], replace(SHORT, frozen_statistics=True))
    after = encoder.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    statistics = {name for name in after if "running" in name or "num_batches" in name}
    assert len(statistics) > 10
    assert changed == set(after) - statistics


def test_progress_reports_every_step():
    seen: list[Progress] = []
    trained(report=seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5, 6]
    assert [progress.precision is None for progress in seen] == [True, False] * 3
    assert all(math.isfinite(progress.loss) and progress.steps == 6 for progress in seen)


@pytest.mark.parametrize("last", [1, 3, 4, 6])
def test_resumed_run_equals_the_uninterrupted(tmp_path, uninterrupted, last):
    checkpoint = tmp_path / "run.pt"

    def kill(progress: Progress) -> None:
        if progress.step == last:
            raise Killed

    with pytest.raises(Killed):
        trained(checkpoint=checkpoint, report=kill)
    steps: list[int] = []
    resumed = trained(checkpoint=checkpoint, report=lambda progress: steps.append(progress.step))
    assert torch.equal(resumed, uninterrupted)
    assert steps[0] == last  # the killed step had not been saved
    history = train(small_encoder(), [small_patient()], SHORT, checkpoint=checkpoint)
    assert history["steps"] == 6
    assert math.isfinite(float(history["loss"]))


KILLED = """
import sys, time
from pathlib import Path
import torch
from phantoms.training import *
from CrossKEYLib.training.patient.train import train
torch.set_num_threads(int(sys.argv[2]))  # sums in another order differ in the last bit
def tell(progress):
    print(progress.step, flush=True)
    time.sleep(0.05)
train(small_encoder(), [small_patient()], SHORT, checkpoint=Path(sys.argv[1]), report=tell)
"""


def test_sigkill_then_resume(tmp_path, uninterrupted):
    checkpoint = tmp_path / "run.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(checkpoint), str(torch.get_num_threads())],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if line.strip() == "4":
                time.sleep(0.06)  # somewhere in the writing of the file or the next step
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["run.pt"]
    steps: list[int] = []
    resumed = trained(checkpoint=checkpoint, report=lambda progress: steps.append(progress.step))
    assert 4 <= steps[0] <= 6
    assert torch.equal(resumed, uninterrupted)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"identity": "another patient"},
        {"config": replace(SHORT, temperature=0.1)},
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change):
    checkpoint = tmp_path / "run.pt"
    config = replace(SHORT, steps=1)
    trained(config, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ModelError, match="a checkpoint of another training run; remove it"):
        trained(**{"config": config, "checkpoint": checkpoint, **change})
    assert checkpoint.read_bytes() == before


def test_no_patient_is_refused():
    with pytest.raises(InputError, match="at least one patient"):
        train(small_encoder(), [], SHORT)


def test_a_patient_without_views_is_refused():
    empty = replace(small_patient(), saliency=small_patient().saliency)
    empty.anatomy.maps.zero_()
    with pytest.raises(InputError, match="no synthetic view of this MRI holds enough brain"):
        train(small_encoder(), [empty], SHORT)


def test_early_stop_only_after_the_curriculum():
    config = replace(
        SHORT, steps=20, evaluations=20, patience=3, learning_rate=0.0, curriculum_share=0.5
    )
    history = train(small_encoder(), [small_patient()], config)
    assert history["steps"] == 11
    longer = train(small_encoder(), [small_patient()], replace(config, patience=100))
    assert longer["steps"] == 20


class Ticking:
    """Time that passes only by being asked for, so that no machine changes the outcome."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.05
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Ticking:
    found = Ticking()
    monkeypatch.setattr("CrossKEYLib.training.loop.time", found)
    return found


def test_time_budget_is_kept(clock):
    config = replace(SHORT, steps=None, minutes=2 / 60, patience=100)
    seen: list[Progress] = []
    train(small_encoder(), [small_patient()], config, report=seen.append)
    assert 1.0 < clock.now < 2.5
    assert [progress.steps for progress in seen[: TIMING_STEPS - 1]] == [0] * (TIMING_STEPS - 1)
    assert seen[-1].steps > TIMING_STEPS
    assert any(progress.precision is not None for progress in seen)


def test_a_machine_that_slows_down_still_ends_in_time(clock):
    def slow(progress: Progress) -> None:
        if progress.step > TIMING_STEPS:
            clock.now += 1.0

    config = replace(SHORT, steps=None, minutes=4 / 60, patience=100)
    history = train(small_encoder(), [small_patient()], config, report=slow)
    assert 4 < clock.now < 4 * 1.1 + 2
    assert TIMING_STEPS < int(history["steps"]) <= TIMING_STEPS + 6


TWO = """
import sys
from pathlib import Path
import torch
from phantoms.training import *
from CrossKEYLib.training import distributed
from CrossKEYLib.training.patient.train import train

out = Path(sys.argv[1])
rank, world = distributed.join(torch.device("cpu"))
torch.manual_seed(rank)
model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
unused = torch.nn.Linear(2, 2)
model.add_module("unused", unused)
distributed.same_start(model)
torch.save(model.state_dict(), out / f"start{rank}")
data = torch.arange(48.0).reshape(8, 6).sin()[rank::world]
torch.nn.Sequential(*list(model)[:3])(data).square().mean().backward()
distributed.average_gradients(model)
torch.save([p.grad for p in model.parameters()], out / f"gradient{rank}")
agreed = distributed.largest(10.0 * rank)

encoder = small_encoder(seed=rank)  # the first process's weights win
history = train(encoder, [small_patient()], SHORT)
torch.save(weights_of(encoder), out / f"trained{rank}")

class Killed(BaseException): pass
def kill(progress):
    if progress.step == 3:
        raise Killed
checkpoint = out / "run.pt"
try:
    train(small_encoder(), [small_patient()], SHORT, checkpoint=checkpoint, report=kill)
except Killed:
    pass
encoder = small_encoder()
train(encoder, [small_patient()], SHORT, checkpoint=checkpoint)
torch.save(weights_of(encoder), out / f"resumed{rank}")
torch.save([world, agreed, history["processes"], history["held_out_precision"]],
           out / f"facts{rank}")
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.py").write_text(TWO)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(folder / "two.py"), str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read(folder: Path, name: str) -> list:
    return [torch.load(folder / f"{name}{rank}", weights_only=True) for rank in (0, 1)]


def test_two_processes_end_with_equal_weights(two_processes, uninterrupted):
    first, second = read(two_processes, "trained")
    assert torch.equal(first, second)
    # Were the second process's pairs not used, the run would be that of one process.
    assert not torch.allclose(first, uninterrupted, rtol=1e-3, atol=1e-4)
    facts = read(two_processes, "facts")
    assert facts[0] == facts[1]
    assert facts[0][:3] == [2, 10.0, 2]


def test_two_processes_resume_as_if_uninterrupted(two_processes):
    resumed, trained_at_once = read(two_processes, "resumed"), read(two_processes, "trained")
    assert torch.equal(resumed[0], trained_at_once[0])
    assert torch.equal(resumed[0], resumed[1])


def test_averaged_gradient_is_that_of_the_union(two_processes):
    starts = read(two_processes, "start")
    assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    model.load_state_dict({k: v for k, v in starts[0].items() if not k.startswith("unused")})
    model(torch.arange(48.0).reshape(8, 6).sin()).square().mean().backward()
    for gradients in read(two_processes, "gradient"):
        *used, weight, bias = gradients
        for parameter, gradient in zip(model.parameters(), used, strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
        assert not weight.any()
        assert not bias.any()
