"""A general model from a list of patients: what the list may say, and what comes out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from phantoms.training import ENCODER, SHORT, texture

from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.geometry.volume import Grid
from CrossKEYLib.models.patient import Model
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.training.patient import pairs, train
from CrossKEYLib.training.patient.pretrain import PatientFiles, pretrain, read_plan

HERE = Path(__file__).parents[2]
CONFIGS = HERE.parents[1] / "Resources" / "Configs"
BRIEF = replace(SHORT, steps=3, evaluations=1, points=16)


def written(path: Path, patients) -> Path:
    """A YAML of a small network and a short run."""
    plan = {"network": asdict(ENCODER), "training": asdict(BRIEF), "patients": patients}
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two patients, the second with a brain mask."""
    folder = tmp_path_factory.mktemp("patients")
    (folder / "a b").mkdir()
    for number, name in enumerate(("a b/T1.nii.gz", "a b/T2.nii.gz", "c.nii.gz")):
        write_volume(texture(40, seed=number), folder / name)
    brain = texture(40)
    points = Grid.of(brain).points() - torch.tensor(brain.centre_ras, dtype=torch.float32)
    write_volume(brain.replaced((points.norm(dim=-1) < 18).float()), folder / "mask.nii.gz")
    patients = [
        {"name": "first", "images": ["a b/T1.nii.gz", "a b/T2.nii.gz"]},
        {"name": "second", "images": ["c.nii.gz"], "brain": "mask.nii.gz"},
    ]
    return written(folder / "list.yaml", patients)


def same(a: Model, b: Model) -> bool:
    ours, theirs = a.encoder.state_dict(), b.encoder.state_dict()
    return all(torch.equal(ours[key].half(), theirs[key].half()) for key in ours)


def test_the_model_is_general_and_follows_the_seed(data, tmp_path):
    steps: list[int] = []
    model = pretrain(data, tmp_path / "g.pt", report=lambda progress: steps.append(progress.step))
    assert steps == [1, 2, 3]
    read = Model.load(tmp_path / "g.pt")
    assert same(read, model)
    assert (read.name, read.mri, read.described) == ("g", (), None)
    assert read.history["data"] == "first, second"
    assert read.encoder.config == ENCODER
    torch.manual_seed(99)  # the caller's own randomness has no say
    assert same(pretrain(data, tmp_path / "again.pt"), model)
    assert not same(pretrain(data, tmp_path / "other.pt", seed=1), model)


def test_resume_and_a_checkpoint_of_another_list(data, tmp_path):
    def kill(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    output, checkpoint = tmp_path / "g.pt", tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, output, checkpoint=checkpoint, report=kill)
    assert not output.exists()
    resumed = pretrain(data, output, checkpoint=checkpoint)
    assert same(resumed, pretrain(data, tmp_path / "whole.pt"))
    single = written(data.parent / "single.yaml", [{"name": "first", "images": ["c.nii.gz"]}])
    with pytest.raises(ModelError, match="checkpoint of another training run"):
        pretrain(single, output, checkpoint=checkpoint)


def test_a_model_is_gone_on_from_as_it_is(data, tmp_path, monkeypatch):
    """Its network, its weights, and no easy beginning."""
    plan = yaml.safe_load(data.read_text())
    plan["network"]["width"] *= 2
    plan["training"] |= {"learning_rate": 1e-12, "mri_share": 1.0}
    still = data.parent / "still.yaml"
    still.write_text(yaml.safe_dump(plan))
    angles = []

    def draw(*args, **options):
        if "in_mri_tones" in options:  # a step, and no held-out pair
            assert not options["in_mri_tones"]
            angles.append(options["max_angle_deg"])
        return pairs.draw_pairs(*args, **options)

    monkeypatch.setattr(train, "draw_pairs", draw)
    start = pretrain(data, tmp_path / "start.pt", steps=1)
    more = pretrain(still, tmp_path / "more.pt", start=start, steps=1)
    assert angles[0] < 0.1 * BRIEF.max_angle_deg
    assert angles[-1] == BRIEF.max_angle_deg
    assert more.encoder.config == start.encoder.config
    before, after = dict(start.encoder.named_parameters()), dict(more.encoder.named_parameters())
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_only_the_first_process_writes(data, tmp_path, monkeypatch):
    """What several processes train together is shown in test_train.py."""
    monkeypatch.setenv("RANK", "1")
    pretrain(data, tmp_path / "g.pt", steps=1)
    assert list(tmp_path.iterdir()) == []


def test_paths_are_relative_to_the_list(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = data.parent
    assert read_plan(data).patients == (
        PatientFiles("first", (folder / "a b/T1.nii.gz", folder / "a b/T2.nii.gz")),
        PatientFiles("second", (folder / "c.nii.gz",), folder / "mask.nii.gz"),
    )


ONE = {"name": "a", "images": ["c.nii.gz"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ONE], "expected patients, a list"),
        ({"patients": []}, "expected patients, a list"),
        ({"patients": ONE}, "patients: expected a list, each with a name"),
        ({"patients": [ONE], "trainer": {}}, "unknown section 'trainer'; known: network, training"),
        ({"patients": [ONE], "training": {"step": 3}}, r"training: unknown key 'step'"),
        ({"patients": [ONE], "network": {"width": "wide"}}, "network.width: expected a whole"),
        ({"patients": ["a"]}, "patients 1: expected name and images, got 'a'"),
        (
            {"patients": [{"name": "a", "image": []}]},
            "unknown key 'image'; known keys: name",
        ),
        ({"patients": [{"images": ["c.nii.gz"]}]}, "expected a name, got None"),
        ({"patients": [ONE | {"images": "c.nii.gz"}]}, r"\(a\): images: expected a list of images"),
        ({"patients": [ONE | {"images": []}]}, r"\(a\): images: expected a list of images"),
        ({"patients": [ONE | {"images": [3]}]}, r"\(a\): images: expected a path, got 3"),
        (
            {"patients": [ONE | {"images": ["gone.nii.gz"]}]},
            r"there is no .*gone\.nii\.gz; paths are relative to the list",
        ),
        ({"patients": [ONE | {"brain": "gone.nii"}]}, r"there is no .*gone\.nii;"),
        ({"patients": [ONE, ONE]}, "two patients are called 'a'"),
    ],
)
def test_lists_that_cannot_be_used(data, content, message):
    path = data.parent / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message) as caught:
        pretrain(path, data.parent / "never.pt")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (data.parent / "never.pt").exists()


def test_the_output_is_checked_before_the_work(data, tmp_path):
    with pytest.raises(InputError, match=r"expected a name ending in \.pt"):
        pretrain(data, tmp_path / "model.pth")
    with pytest.raises(InputError, match="cannot write"):
        pretrain(data, tmp_path / "nowhere" / "model.pt")


def test_an_unusable_image_names_its_patient(data):
    dark = texture(40)
    write_volume(dark.replaced(0 * dark.array), data.parent / "dark.nii.gz")
    path = written(data.parent / "dark.yaml", [{"name": "dark", "images": ["dark.nii.gz"]}])
    with pytest.raises(InputError, match="dark"):
        pretrain(path, data.parent / "never.pt")


def test_the_plan_says_how_long_unless_the_caller_does(data, tmp_path):
    assert pretrain(data, tmp_path / "a.pt").history["steps"] == BRIEF.steps
    assert pretrain(data, tmp_path / "b.pt", steps=1).history["steps"] == 1


def test_the_plan_of_the_bundled_model_is_well_formed(tmp_path):
    """All it lacks is the images."""
    text = (CONFIGS / "pretrain.yaml").read_text(encoding="utf-8")
    for patient in yaml.safe_load(text)["patients"]:
        for image in patient["images"]:
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / image).touch()
    (tmp_path / "pretrain.yaml").write_text(text, encoding="utf-8")
    plan = read_plan(tmp_path / "pretrain.yaml")
    people = yaml.safe_load((CONFIGS / "people.yaml").read_text(encoding="utf-8"))["heads"]
    assert sorted(patient.name for patient in plan.patients) == sorted(people["training"])
    others = {*people["validation"], *people["test"]}
    assert not others & {
        part for patient in plan.patients for p in patient.images for part in p.parts
    }
    assert plan.network == Model.load().encoder.config
