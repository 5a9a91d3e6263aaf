"""Training of the universal embedding, its YAML and its model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from phantoms.training import texture, weights_of
from phantoms.universal import BRIEF, NETWORK, brief_yaml, small_network, small_subject

from CrossKEYLib import cli
from CrossKEYLib.config import UniversalTrainConfig
from CrossKEYLib.errors import InputError, ModelError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.models.patient import Model
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.training.universal.losses import appearance
from CrossKEYLib.training.universal.pretrain import pretrain_universal, read_plan
from CrossKEYLib.training.universal.train import train_universal

CONFIGS = Path(__file__).parents[4] / "Resources" / "Configs"


class Killed(BaseException):
    """Stands for whatever ends a run at once."""


@pytest.fixture(scope="module")
def subjects():
    return [small_subject(0), small_subject(1, labelled=False)]


def trained(subjects, config: UniversalTrainConfig = BRIEF, **options) -> torch.Tensor:
    network = small_network()
    train_universal(network, subjects, config, **options)
    return weights_of(network)


def test_the_seed_decides(subjects):
    once = trained(subjects)
    assert torch.equal(trained(subjects), once)
    assert not torch.equal(trained(subjects, seed=1), once)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(subjects, tmp_path):
    checkpoint = tmp_path / "run.pt"

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        trained(subjects, checkpoint=checkpoint, report=kill)
    steps: list[int] = []
    report = lambda progress: steps.append(progress.step)  # noqa: E731
    resumed = trained(subjects, checkpoint=checkpoint, report=report)
    assert steps == [3, 4]
    assert torch.equal(resumed, trained(subjects))
    with pytest.raises(ModelError, match="another training run"):
        trained(subjects, checkpoint=checkpoint, identity="other images")


def test_training_teaches(subjects):
    """On pairs seen for the first time the loss ends far below that of no steps."""
    losses = {}
    for rate in (0.0, 4e-3):
        seen: list[Progress] = []
        config = replace(BRIEF, steps=40, learning_rate=rate, max_angle_deg=10.0, first_share=0.2)
        train_universal(small_network(), subjects, config, report=seen.append)
        losses[rate] = sum(progress.loss for progress in seen[-10:]) / 10
    assert losses[4e-3] < losses[0.0] - 1.0


def test_labels_pull_the_semantic_head(subjects):
    """Without labels, or without weight, the semantic head gets no gradient."""

    def moved(config: UniversalTrainConfig, chosen) -> bool:
        network, fresh = small_network(), small_network()
        train_universal(network, chosen, replace(config, weight_decay=0.0))
        return not torch.equal(network.semantic.weight, fresh.semantic.weight)

    assert moved(BRIEF, subjects)
    assert not moved(BRIEF, subjects[1:])
    assert not moved(replace(BRIEF, semantic_weight=0.0), subjects)


def test_a_patient_is_no_negative_of_itself(subjects, monkeypatch):
    """Two pairs of one patient in a step show the same anatomy; two patients do not."""
    counts = []

    def watching(queries, keys, candidates, near, others, *rest):
        counts.append(len(others))
        return appearance(queries, keys, candidates, near, others, *rest)

    monkeypatch.setattr("CrossKEYLib.training.universal.train.appearance", watching)
    trained(subjects[:1], replace(BRIEF, steps=1))
    assert set(counts) == {0}
    counts.clear()
    trained(subjects, replace(BRIEF, steps=1))
    assert set(counts) == {BRIEF.others}


def test_one_patient_is_enough_and_none_is_not(subjects):
    assert trained(subjects[:1]).isfinite().all()
    with pytest.raises(InputError, match="at least one patient"):
        trained([])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two patients, the second with labels."""
    folder = tmp_path_factory.mktemp("uae")
    for number, name in enumerate(("a1.nii.gz", "a2.nii.gz", "b.nii.gz")):
        write_volume(texture(40, seed=number), folder / name)
    image = texture(40)
    write_volume(image.replaced((image.array > 0.5).float()), folder / "labels.nii.gz")
    path = folder / "list.yaml"
    path.write_text(yaml.safe_dump(content()))
    return path


def content() -> dict:
    return {
        **brief_yaml(),
        "patients": [
            {"name": "a", "images": ["a1.nii.gz", "a2.nii.gz"]},
            {"name": "b", "images": ["b.nii.gz"], "labels": "labels.nii.gz"},
        ],
    }


def test_a_model_comes_out_and_reads_back(data, tmp_path):
    output = tmp_path / "uae.pt"
    made = pretrain_universal(data, output)
    read = UniversalModel.load(output)
    assert (read.name, read.history["data"], read.history["steps"]) == ("uae", "a, b", 2)
    assert read.network.config == NETWORK
    assert not read.network.training
    volume = texture(32)
    points = torch.tensor([[0.0, 30.0, 60.0], [-5.0, 25.0, 55.0]])
    for a, b in zip(made.embed(volume).at(points), read.embed(volume).at(points), strict=True):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=0)  # weights are stored in half precision
    assert pretrain_universal(data, tmp_path / "b.pt", steps=1).history["steps"] == 1


def test_a_patient_may_be_seen_by_ultrasound(data, tmp_path):
    values = content()
    values["patients"][0]["ultrasound"] = True
    values["training"] |= {"ultrasound_share": 1.0, "crop_mm": 32}
    path = data.parent / "ultrasound.yaml"
    path.write_text(yaml.safe_dump(values))
    assert [patient.ultrasound for patient in read_plan(path).patients] == [True, False]
    with_it = pretrain_universal(path, tmp_path / "a.pt", steps=1)
    values["training"]["ultrasound_share"] = 0.0
    path.write_text(yaml.safe_dump(values))
    without = pretrain_universal(path, tmp_path / "b.pt", steps=1)
    assert not torch.equal(weights_of(with_it.network), weights_of(without.network))


def test_training_goes_on_from_a_model(data, tmp_path):
    first = pretrain_universal(data, tmp_path / "first.pt")
    still = pretrain_universal(data, tmp_path / "more.pt", start=first, steps=1)
    apart = (weights_of(still.network) - weights_of(first.network)).abs()
    fresh = (weights_of(still.network) - weights_of(small_network())).abs()
    assert 0 < apart.mean() < fresh.mean()


def test_the_command_trains_and_cleans_up(data, tmp_path, capsys):
    output = tmp_path / "uae.pt"
    given = ["pretrain", "--kind", "uae", "--data", str(data), "--output", str(output)]
    assert cli.main([*given, "--steps", "1"]) == 0
    assert "held_out_precision" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["uae.pt"]
    assert cli.main([*given, "--model", str(data)]) == 2
    assert "model file" in capsys.readouterr().err


def test_models_of_another_kind_are_told_apart(data, tmp_path):
    output = tmp_path / "uae.pt"
    pretrain_universal(data, output)
    with pytest.raises(ModelError, match="unknown architecture 'uae'"):
        Model.load(output)
    with pytest.raises(ModelError, match="dense encoder, expected a universal embedding"):
        UniversalModel.load(Path(__file__).parents[4] / "Resources/Models/crosskey-general.pt")


def test_the_output_is_checked_before_the_work(data, tmp_path):
    with pytest.raises(InputError, match=r"expected a name ending in \.pt"):
        pretrain_universal(data, tmp_path / "m.pth")
    with pytest.raises(InputError, match="cannot write"):
        pretrain_universal(data, tmp_path / "nowhere" / "m.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), "expected patients, a list.*; known sections: network, training"),
        (lambda c: c.update(patient=[]), "unknown section 'patient'"),
        (lambda c: c.update(patients={}), "expected patients, a list"),
        (lambda c: c.update(patients="a"), "patients: expected a list"),
        (lambda c: c["training"].update(stepps=3), "training: unknown key 'stepps'"),
        (lambda c: c["network"].update(width="wide"), "network.width: expected a whole number"),
        (lambda c: c["patients"].append(3), "patients 3: expected name and images, got 3"),
        (lambda c: c["patients"][0].update(brain="x"), "unknown key 'brain'"),
        (lambda c: c["patients"][0].update(name=""), "expected a name"),
        (lambda c: c["patients"][0].update(images=[]), r"\(a\): images: expected a list of images"),
        (lambda c: c["patients"][0].update(images=[1]), r"\(a\): images: expected a path, got 1"),
        (
            lambda c: c["patients"][1].update(labels="no.nii"),
            r"\(b\): labels: there is no ",
        ),
        (lambda c: c["patients"][0].update(ultrasound="yes"), "expected true or false, got 'yes'"),
        (lambda c: c["patients"][1].update(name="a"), "two patients are called 'a'"),
    ],
)
def test_yaml_that_cannot_be_used(data, change, message):
    values = content()
    change(values)
    path = data.parent / "bad.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "seen"),
    [("uae.yaml", False), ("uae-ultrasound.yaml", True), ("uae-atlas.yaml", False)],
)
def test_examples_are_well_formed_and_hold_out_what_they_say(tmp_path, name, seen):
    text = (CONFIGS / name).read_text(encoding="utf-8")
    for patient in yaml.safe_load(text)["patients"]:
        atlas = patient.get("atlas", {}).values()
        for image in [*patient["images"], patient.get("labels", patient["images"][0]), *atlas]:
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / image).touch()
    (tmp_path / "uae.yaml").write_text(text, encoding="utf-8")
    patients = read_plan(tmp_path / "uae.yaml").patients
    assert [patient.name for patient in patients] == ["p19", "colin27", "remind022"]
    assert {patient.ultrasound for patient in patients} == {seen}
    assert (sum(patient.atlas is not None for patient in patients) == 2) is (
        name == "uae-atlas.yaml"
    )
