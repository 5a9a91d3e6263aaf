"""What the device does in a second: registration, preparation, embedding and training.

    python -m Testing.Studies.gpu --output FOLDER [--device auto] [--small]

Uses the bundled sample and models alone, so it runs on any machine that has the repository and
torch. Writes ``gpu.json`` and ``gpu.md``. Transfers between host and device are counted by the
profiler; on a processor, those reads of single values are counted that would each be one on a GPU.
``--small`` is the same in seconds, to check the command.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from CrossKEYLib.config import RegisterConfig, TrainConfig
from CrossKEYLib.formats.atomic import write_json
from CrossKEYLib.formats.outputs import check_folder, together
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.registration.pipeline import register
from CrossKEYLib.runtime.allocator import keep_freed_memory
from CrossKEYLib.runtime.device import pick_device
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.runtime.resources import resource as bundled
from CrossKEYLib.training.patient.prepare import PATIENT, prepare
from CrossKEYLib.training.patient.pretrain import pretrain

from .measuring import machine

_COPIES = ("Memcpy HtoD", "Memcpy DtoH")
_READ = "aten::_local_scalar_dense"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    points: int  # of the iUS
    repeats: int
    steps: int  # of training
    training: TrainConfig
    embedded_mm: float  # edge of the cube that is embedded; 0: the whole image


FULL = Size(12000, 5, 40, TrainConfig(evaluations=1, held_out=2, curriculum_share=0.0), 0.0)
SMALL = Size(
    800,
    1,
    2,
    TrainConfig(evaluations=1, held_out=1, curriculum_share=0.0, crops=1, points=64, crop_mm=24.0),
    32.0,
)


def synchronised(device: torch.device) -> None:
    """Wait until the device has done all that was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    synchronised(device)
    start = time.perf_counter()
    work()
    synchronised(device)
    return time.perf_counter() - start


def transfers(work: Callable[[], object], device: torch.device) -> int:
    """How often data went from host to device or back while ``work`` ran."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as watched:
        work()
        synchronised(device)
    counted = _COPIES if device.type == "cuda" else (_READ,)
    return sum(e.count for e in watched.key_averages() if e.key.startswith(counted))


def peak_mb(device: torch.device) -> float:
    """Most memory held: the device's by tensors, or this process's on a processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**2
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def figures(device: torch.device, size: Size) -> dict[str, float]:
    """Every number of the table, by its name and unit."""
    mri, ius = (
        Volume.read(bundled(f"SampleData/{name}.nii.gz")).to(device) for name in ("MRI", "iUS")
    )
    found = {**_registration(mri, ius, device, size), **_embedding(mri, device, size)}
    found["prepare, steps/s"] = _steps_a_second(
        lambda report: prepare(
            [mri], config=_training(size, PATIENT), device=device, seed=0, report=report
        )
    )
    with tempfile.TemporaryDirectory() as name:
        plan, output = Path(name) / "plan.yaml", Path(name) / "model.pt"
        listed = [{"name": "sample", "images": [str(bundled("SampleData/MRI.nii.gz"))]}]
        training = _training(size, TrainConfig())
        changed = {k: v for k, v in vars(training).items() if v != getattr(TrainConfig(), k)}
        plan.write_text(yaml.safe_dump({"patients": listed, "training": changed}))
        found["pretrain, steps/s"] = _steps_a_second(
            lambda report: pretrain(plan, output, device=device, seed=0, report=report)
        )
    found["peak memory, MB"] = peak_mb(device)
    return found


def _registration(mri: Volume, ius: Volume, device: torch.device, size: Size) -> dict[str, float]:
    config = replace(
        RegisterConfig(), moving_points=size.points, search_rotations=size is not SMALL
    )
    model = Model.load().to(device)
    first = []
    found = {
        "register cold, s": seconds_of(
            lambda: first.append(register(mri, ius, model, config=config)), device
        )
    }
    kept = replace(model, described=first[0].fixed)

    def again() -> object:
        return register(mri, ius, kept, config=config)

    times = [seconds_of(again, device) for _ in range(size.repeats)]
    found["register warm, s"] = statistics.median(times)
    found["register warm, transfers"] = transfers(again, device)
    return found


def _embedding(mri: Volume, device: torch.device, size: Size) -> dict[str, float]:
    model = UniversalModel.load().to(device)
    if size.embedded_mm:
        half = size.embedded_mm / 2
        corners = np.stack([mri.centre_ras - half, mri.centre_ras + half])
        mri = mri.resample(Grid.around(corners, 1.0))
    model.embed(mri)  # the first pass chooses its algorithms
    times = [seconds_of(lambda: model.embed(mri), device) for _ in range(size.repeats)]
    return {
        "embed, s": statistics.median(times),
        "embed, transfers": transfers(lambda: model.embed(mri), device),
    }


def _training(size: Size, like: TrainConfig) -> TrainConfig:
    """The settings of ``like`` with the length of the measurement."""
    given, plain = vars(size.training), TrainConfig()
    changed = {name: value for name, value in given.items() if value != getattr(plain, name)}
    return replace(like, **changed, steps=size.steps)


def _steps_a_second(run: Callable[[Callable[[Progress], None]], object]) -> float:
    """Of the second half of the run: the first step chooses algorithms, and others evaluate."""
    times: list[float] = []

    def report(progress: Progress) -> None:
        times.append(time.perf_counter())

    run(report)
    later = times[len(times) // 2 - 1 :]
    return (len(later) - 1) / (later[-1] - later[0])


def table(found: dict[str, float], named: dict[str, str | int], device: torch.device) -> str:
    """Markdown."""
    lines = [", ".join(f"{k} {v}" for k, v in named.items()), "", f"| | {device} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value:.4g} |" for name, value in found.items())])


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    check_folder(args.output)
    device = pick_device(args.device)
    named = machine(device)
    found = figures(device, SMALL if args.small else FULL)
    text = table(found, named, device)
    args.output.mkdir(parents=True, exist_ok=True)
    with together() as stage:
        content = {"machine": named, "device": str(device), "figures": found}
        write_json(content, stage(args.output / "gpu.json"))
        stage(args.output / "gpu.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
