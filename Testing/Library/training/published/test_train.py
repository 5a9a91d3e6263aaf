"""The published layout and YAML, from files to a model and the figures of a match."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from phantoms.training import texture

from CrossKEYLib.config import RegisterConfig, ResNetConfig
from CrossKEYLib.descriptors.patches import random_rotations, sample_patches
from CrossKEYLib.descriptors.resnet import ResNetDescriptor, load_published
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.geometry.intensity import rescaled
from CrossKEYLib.geometry.transform import from_parts
from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.models.described import Described
from CrossKEYLib.models.patient import Model
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.training.losses import select_negatives
from CrossKEYLib.training.published import evaluation, train
from CrossKEYLib.training.published.config import PublishedConfig
from CrossKEYLib.training.published.data import box_mean, build_case, draw, find_cases

HERE = Path(__file__).parents[2]
CONFIGS = HERE.parents[1] / "Resources" / "Configs"
TINY = {
    "model": {"width": 4, "out_dim": 16},
    "loss": {"type": "triplet", "warmup_epochs": 2},
    "trainer": {"max_epochs": 2},
    "data": {
        "batch_size": 24,
        "num_samples": 48,
        "patch_size": 16,
        "angle_warmup_epochs": 2,
        "min_distance": 3.0,
        "grid_spacing": 4,
    },
    "optimizer": {},
    "evaluation": {"ratio_threshold": 0.9},
}
PUBLISHED = """
model: {out_dim: 512, input_channels: 1}
loss: {type: "triplet", margin: 1.0, temperature: 0.1, warmup_epochs: 200, spatial_weight: 0.5,
       max_spatial_dist: 48.0}
optimizer: {learning_rate: 0.001, weight_decay: 0.002, eta_min: 1e-6}
trainer: {max_epochs: 2000, accelerator: "auto", devices: "auto", log_every_n_steps: 50}
data: {batch_size: 256, num_workers: 4, patch_size: 32, num_samples: 1024, grid_spacing: 8,
       augment: true, max_angle: 30.0, initial_angle: 0.0, angle_warmup_epochs: 1000}
evaluation: {knn_k: 1, distance_threshold: inf, ratio_threshold: 0.8, mutual: true,
             metric: "euclidean", max_distance: 5.0}
logger: {type: "tensorboard", save_dir: "logs/", name: "x", project: "y", tags: ["3d"]}
"""


def fan(volume: Volume) -> Volume:
    """Only a ball of 19 mm in the middle is seen."""
    centre = torch.tensor(volume.centre_ras, dtype=torch.float32)
    inside = (Grid.of(volume).points() - centre).norm(dim=-1) < 19
    return volume.replaced(torch.where(inside, volume.array, 0))


def turned(volume: Volume, spacing: float) -> Volume:
    """The same world on another grid: finer or coarser, axes flipped and permuted."""
    axes = np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, 1]])
    return volume.resample(Grid.around(volume.corners_ras(), spacing, 0, axes))


def config_file(folder: Path, **sections: dict) -> Path:
    content = {name: {**values, **sections.get(name, {})} for name, values in TINY.items()}
    path = folder / f"config{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """An MRI, two synthetic styles, and a real ultrasound that looks like the MRI."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("mr", "us", "synthetic_us"):
        (folder / "img" / name).mkdir(parents=True)
    mri = texture(44, grain=3.0)
    noise = 0.1 * texture(44, seed=9, grain=0.7).array
    write_volume(mri, folder / "img/mr/Case1-t2.nii.gz")
    styles = [fan(mri.replaced(1.05 - mri.array + noise)), fan(turned(mri, 0.9))]
    for number, style in enumerate(styles):
        write_volume(style, folder / f"img/synthetic_us/Case1-{number}.nii.gz")
    write_volume(turned(mri, 0.8), folder / "img/us/Case1-us.nii.gz")
    return folder


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train.train(config_file(folder), data_dir, folder / "patient.pt")
    return folder


def test_the_published_yaml_is_read_as_it_is(tmp_path):
    path = tmp_path / "train_config.yaml"
    path.write_text(PUBLISHED)
    assert PublishedConfig.read(path) == PublishedConfig()
    path.write_text("")
    assert PublishedConfig.read(path) == PublishedConfig()
    assert PublishedConfig.read(CONFIGS / "narrow.yaml").network().width == 16
    shipped = PublishedConfig.read(CONFIGS / "published.yaml")
    assert replace(shipped, trainer=PublishedConfig().trainer) == PublishedConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {}", "unknown section 'models'; known sections: model, loss"),
        ("model: {outdim: 3}", "model: unknown key 'outdim'; known keys: checkpoint_path"),
        ("loss: {type: bce}", "loss.type: expected triplet or infonce or info_nce, got 'bce'"),
        ("model: {input_channels: 2}", "input_channels: expected 1, got 2"),
        ("data: {batch_size: 1}", "data.batch_size: expected at least 2, got 1"),
        ("data: {patch_size: 0}", "data.patch_size: expected at least 1, got 0"),
        ("optimizer: {weight_decay: -1}", "optimizer.weight_decay: expected at least 0, got -1"),
        (
            "optimizer: {learning_rate: inf}",
            "learning_rate: expected a number above 0, got inf",
        ),
        ("data: {min_inside: 2}", "data.min_inside: expected a number from 0 to 1, got 2"),
        ("evaluation: {knn_k: 2}", "evaluation.knn_k: expected 1, got 2"),
        (
            "evaluation: {metric: manhattan}",
            "metric: expected euclidean or cosine, got 'manhattan'",
        ),
        (
            "evaluation: {mutual: false}",
            "ratio_threshold: a ratio test needs mutual: true",
        ),
        ("trainer: [1]", "trainer: expected settings as 'key: value' lines"),
        ("- 1", "expected sections, got list"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        PublishedConfig.read(path)
    assert str(caught.value).startswith(str(path))


def test_model_and_export_hold_the_same_network(trained):
    model = Model.load(trained / "patient.pt")
    assert model.name == "patient"
    assert model.history["epochs"] == 2
    assert isinstance(model.encoder, ResNetDescriptor)
    exported = torch.load(trained / "patient.pth", weights_only=True)
    assert list(exported) == list(ResNetDescriptor(ResNetConfig(4, 16)).state_dict())
    assert {"model.conv1.weight", "model.layer4.1.bn2.running_var", "model.fc.bias"} <= set(
        exported
    )
    assert exported["model.conv1.weight"].shape == (4, 1, 7, 7, 7)
    # What the release's users load looks along the same patch axes.
    again = load_published(trained / "patient.pth")
    assert again.config.patch_axes == model.encoder.config.patch_axes
    for key, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, exported[key], rtol=1e-3, atol=1e-3)


def test_training_changes_the_weights_as_the_seed_says(data_dir, trained, tmp_path):
    first = torch.load(trained / "patient.pth", weights_only=True)
    config = config_file(tmp_path)
    train.train(config, data_dir, tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert all(torch.equal(first[key], again[key]) for key in first)
    train.train(config, data_dir, tmp_path / "other.pt", seed=1)
    other = torch.load(tmp_path / "other.pth", weights_only=True)
    assert not torch.equal(first["model.conv1.weight"], other["model.conv1.weight"])


@pytest.mark.parametrize("loss", ["triplet", "infonce"])
def test_training_lowers_the_loss(data_dir, tmp_path, loss):
    """Against the same pairs without learning; negatives stay easy, so that a few epochs do."""
    ends = {}
    for rate in (1e-9, 5e-3):
        config = config_file(
            tmp_path,
            loss={"type": loss, "warmup_epochs": 10**6},
            trainer={"max_epochs": 8},
            data={"augment": False},
            optimizer={"learning_rate": rate, "eta_min": 1e-9},
        )
        seen: list[Progress] = []
        train.train(config, data_dir, tmp_path / f"{rate}.pt", report=seen.append)
        assert [progress.step for progress in seen] == list(range(1, 9))
        ends[rate] = sum(progress.loss for progress in seen[-3:]) / 3
    assert ends[5e-3] < 0.9 * ends[1e-9]


def test_curricula_reach_the_data(data_dir, tmp_path, monkeypatch):
    angles, levels = [], []

    def turn(count: int, angle: float, generator: torch.Generator) -> torch.Tensor:
        angles.append(angle)
        return random_rotations(count, angle, generator)

    def select(similarity, points, exclusion, level, generator, far):
        levels.append((exclusion, level, far))
        return select_negatives(similarity, points, exclusion, level, generator, far)

    monkeypatch.setattr(train, "random_rotations", turn)
    monkeypatch.setattr(train, "select_negatives", select)
    config = config_file(
        tmp_path,
        loss={"warmup_epochs": 2},
        trainer={"max_epochs": 4},
        data={"angle_warmup_epochs": 2, "initial_angle": 10.0, "batch_size": 48},
    )
    train.train(config, data_dir, tmp_path / "a.pt")
    assert angles == [10.0, 20.0, 30.0, 30.0]
    assert levels == [(5.0, level, 48.0) for level in (0.0, 0.5, 1.0, 1.0)]


@pytest.mark.parametrize("last", [1, 2])
def test_resumed_run_equals_the_uninterrupted(data_dir, trained, tmp_path, last):
    def kill(progress: Progress) -> None:
        if progress.step == last:
            raise KeyboardInterrupt

    config, output = config_file(tmp_path), tmp_path / "patient.pt"
    with pytest.raises(KeyboardInterrupt):
        train.train(config, data_dir, output, report=kill)
    assert not output.exists()
    steps: list[int] = []
    train.train(config, data_dir, output, report=lambda progress: steps.append(progress.step))
    assert steps == [2][: 2 - last]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    ours, theirs = (
        torch.load(folder / "patient.pth", weights_only=True) for folder in (tmp_path, trained)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(ModelError, match="checkpoint of another training run"):
        train.train(config, data_dir, output, seed=1)
    train.train(config, data_dir, output, seed=1, resume=False)
    assert Model.load(output).history["seed"] == 1


TWO = """
import sys
from pathlib import Path
import torch
from CrossKEYLib.training import distributed
from CrossKEYLib.training.published import train
config, data, output = map(Path, sys.argv[1:])
model = train.train(config, data, output)
torch.save(model.encoder.state_dict(), output.with_name(f"rank{distributed.join('cpu')[0]}"))
"""


def test_two_processes_train_one_network(data_dir, trained, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    output = tmp_path / "shared.pt"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [tmp_path / "two.py", config_file(tmp_path), data_dir, output]
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    done = subprocess.run(
        [sys.executable, *launch, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in ranks[0])
    assert Model.load(output).history["processes"] == 2
    alone = torch.load(trained / "patient.pth", weights_only=True)
    assert not torch.equal(alone["model.conv1.weight"], ranks[0]["model.conv1.weight"])


def test_points_are_apart_and_well_inside_the_view():
    mri = rescaled(texture(44, grain=1.5))
    view = fan(mri)
    case = build_case("a", [mri], [view, fan(turned(mri, 0.9))], 16, 0.8)
    points, style = draw(case, 200, torch.Generator().manual_seed(0), 3.0, 0.8)
    assert 30 < len(points) <= 200
    assert float((torch.cdist(points, points) + 99 * torch.eye(len(points))).min()) >= 3.0
    assert set(style.tolist()) == {0, 1}
    shown = sample_patches(view.replaced((view.array > 0).float()), points, 16, 1.0)
    assert float(shown.mean((1, 2, 3, 4)).min()) > 0.78


def test_box_mean_is_centred():
    """A single voxel spreads evenly over the cube around it, for even and odd sizes."""
    array = torch.zeros(9, 9, 9)
    array[4, 4, 4] = 1
    for size in (3, 4):
        mean = box_mean(Volume(array, from_parts(np.eye(3), [1.0, 2, 3])), size)
        assert float(mean.array.sum()) == pytest.approx(1)
        grid = Grid.of(mean).points()
        centre = (grid * mean.array[..., None]).sum((0, 1, 2))
        torch.testing.assert_close(centre, torch.tensor([5.0, 6, 7]))


class RawPatches:
    """Describes a point by the intensities around it: enough where both images look alike."""

    def to(self, device: torch.device) -> RawPatches:
        return self

    def describe(
        self, volume: Volume, points: torch.Tensor, modality: str, report=None
    ) -> Described:
        steps = torch.arange(-6.0, 7.0, 3.0)
        offsets = torch.cartesian_prod(steps, steps, steps)
        values = volume.sample(points[:, None] + offsets)
        values = values - values.mean(1, keepdim=True)
        return Described(points, torch.nn.functional.normalize(values, dim=1))


def test_identical_images_match_and_displaced_headers_do_not(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.Model, "load", lambda path: RawPatches())
    config = config_file(tmp_path)
    result = train.test(config, data_dir, tmp_path / "raw")
    json.dumps(result, allow_nan=False)
    (row,) = result["cases"]
    assert (row["case"], row["mri"], row["ius"]) == (
        "Case1",
        "Case1-t2.nii.gz",
        "Case1-us.nii.gz",
    )
    assert row["matches"] > 20
    assert row["precision"] == row["correct"] / row["matches"] > 0.9
    assert row["matching_score"] == row["matches"] / row["mri_points"]
    assert result["precision"] == {"mean": row["precision"], "std": None}
    fewer = config_file(tmp_path, evaluation={"ratio_threshold": 0.3})
    assert train.test(fewer, data_dir, tmp_path)["cases"][0]["matches"] < row["matches"]
    none = config_file(tmp_path, evaluation={"distance_threshold": 1e-6})
    empty = train.test(none, data_dir, tmp_path)["cases"][0]
    assert (empty["matches"], empty["precision"], empty["matching_score"]) == (0, 0, 0)
    moved = tmp_path / "data"
    shutil.copytree(data_dir, moved)
    us = moved / "img/us/Case1-us.nii.gz"
    write_volume(Volume.read(us).moved(from_parts(np.eye(3), [7.0, 0, 0])), us)
    assert train.test(config, moved, tmp_path)["precision"]["mean"] < 0.1


def test_several_cases_are_told_apart_and_averaged(data_dir, trained, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(data_dir, both)
    shutil.copy(data_dir / "img/mr/Case1-t2.nii.gz", both / "img/mr/Case2-t2.nii.gz")
    shutil.copy(data_dir / "img/us/Case1-us.nii.gz", both / "img/us/Case2-us.nii.gz")
    config = config_file(tmp_path, model={"checkpoint_path": str(trained / "patient.pth")})
    with pytest.raises(InputError, match="case Case1: no salient point has 80% of its 60 mm patch"):
        train.test(config_file(tmp_path, data={"patch_size": 60}), both, trained / "patient.pt")
    told: list[str] = []
    result = train.test(config, both, progress=told.append)
    points = result["cases"][-1]["ius_points"]
    assert told[-1] == f"iUS descriptors, {points} of {points}"
    assert [row["case"] for row in result["cases"]] == ["Case1", "Case2"]
    assert result["matching_score"]["std"] >= 0
    stray = both / "img/us/Case3-us.nii.gz"
    shutil.copy(data_dir / "img/us/Case1-us.nii.gz", stray)
    with pytest.raises(
        InputError, match=r"Case3-us\.nii\.gz belongs to none of the cases Case1, Case2"
    ):
        find_cases(both, "us")


def test_registration_pairs_keypoints_as_the_published_settings_do() -> None:
    ours = RegisterConfig().keypoints.match
    assert replace(PublishedConfig().matching(), max_matches=ours.max_matches) == ours


def test_what_is_missing_is_named(data_dir, trained, tmp_path):
    config = config_file(tmp_path)
    with pytest.raises(InputError, match=r"img/mr; put the MRI there"):
        train.train(config, tmp_path, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"expected a name ending in \.pt"):
        train.train(config, data_dir, tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match=r"or its path as model\.checkpoint_path"):
        train.test(config, data_dir)
    with pytest.raises(ModelError, match="expected a crosskey-model file"):
        train.test(config, data_dir, trained / "patient.training.pt")
    apart = tmp_path / "apart"
    shutil.copytree(data_dir, apart)
    mr = apart / "img/mr/Case1-t2.nii.gz"
    write_volume(Volume.read(mr).moved(from_parts(np.eye(3), [900.0, 0, 0])), mr)
    with pytest.raises(InputError, match="case Case1: MRI and ultrasound do not overlap"):
        train.train(config, apart, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
