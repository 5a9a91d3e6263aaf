"""Cross-modality learning in rounds: what is registered, what counts, when it ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from phantoms.known import known
from phantoms.training import texture, weights_of
from phantoms.universal import OffsetModel, brief_yaml

from CrossKEYLib import cli
from CrossKEYLib.config import ViewConfig
from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.models.universal import UniversalModel
from CrossKEYLib.runtime.progress import Progress
from CrossKEYLib.training.universal import rounds
from CrossKEYLib.training.universal.pretrain import pretrain_universal, read_plan
from CrossKEYLib.training.universal.rounds import (
    Patient,
    RoundsConfig,
    held_out_error,
    learn_in_rounds,
    register_patient,
)
from CrossKEYLib.training.universal.views import draw_views
from Testing.Studies import unregistered

IMAGE = texture(56, grain=2.5)
MOTION = transform.random_rigid(np.random.default_rng(3), 8.0, 5.0, IMAGE.centre_ras)
APART = IMAGE.replaced(0.9 * IMAGE.array**1.2).moved(MOTION)
STRANGER = texture(48, seed=77, grain=4.0)
CONFIG = RoundsConfig(points=60)


class Killed(BaseException):
    """Stands for whatever ends a run at once."""


def error_of(matrix: np.ndarray | None) -> float:
    """Mean error (mm) of a registration of `APART`."""
    assert matrix is not None
    corners = torch.as_tensor(IMAGE.corners_ras())
    back = transform.apply(matrix @ MOTION, corners)
    return float((back - corners).norm(dim=1).mean())


@pytest.fixture(scope="module")
def model() -> UniversalModel:
    return OffsetModel()


def test_what_belongs_together_is_registered_and_what_does_not_is_left_out(model):
    patient = Patient("p", (IMAGE,), unregistered=(APART, STRANGER))
    right, wrong = register_patient(patient, model, CONFIG)
    assert right.kept
    assert known(right.inverse_consistency_mm) < 1.5
    assert error_of(right.matrix) < 1.5
    assert not wrong.kept
    off = wrong.inverse_consistency_mm
    assert off is None or off > CONFIG.inverse_consistency_mm


def test_a_round_learns_from_what_was_registered(monkeypatch, model):
    """The subject's second contrast lies on the first, though it came from elsewhere."""
    patient = Patient("p", (IMAGE,), unregistered=(STRANGER, APART))
    monkeypatch.setattr(rounds, "held_out_error", lambda *rest: (5.0, 0.5, 9.0))
    seen = []

    def train(number, before, subjects):
        seen.append((number, before, subjects))
        return model

    learn_in_rounds([patient], [patient], model, train, replace(CONFIG, most=1))
    ((number, before, (subject,)),) = seen
    assert (number, before) == (1, model)
    assert len(subject.contrasts) == 2  # the stranger is left out
    inner = (slice(10, 44),) * 3
    laid = torch.stack([contrast[inner].flatten() for contrast in subject.contrasts])
    assert torch.corrcoef(laid)[0, 1] > 0.95


def test_without_a_model_the_first_contrast_alone_comes_first(monkeypatch, model):
    found = rounds.Registered("p", 0, transform.invert(MOTION), 0.1, True)
    monkeypatch.setattr(rounds, "held_out_error", lambda *rest: (5.0, 0.5, 9.0))
    monkeypatch.setattr(rounds, "register_patient", lambda *rest: (found,))
    patient = Patient("p", (IMAGE,), unregistered=(APART,))
    shapes = []

    def train(number, before, subjects):
        shapes.append((number, before is None, len(subjects[0].contrasts)))
        return model

    learn_in_rounds([patient], [patient], None, train, replace(CONFIG, most=1))
    assert shapes == [(0, True, 1), (1, False, 2)]


@pytest.mark.parametrize(
    ("errors", "ran", "best"),
    [
        ([9.0, 6.0, 5.99, 1.0], 2, 2),  # too little gained, yet gained
        ([9.0, 6.0, 7.0, 1.0], 2, 1),  # lost
        ([9.0, 9.5, 1.0, 1.0], 1, 0),  # never better than the start
        ([9.0, 8.0, 7.0, 6.0], 3, 3),  # all rounds used
    ],
)
def test_rounds_end_when_held_out_images_gain_no_more(monkeypatch, model, errors, ran, best):
    models = [model, *(OffsetModel() for _ in range(3))]
    by_model = {id(m): error for m, error in zip(models, errors, strict=True)}
    monkeypatch.setattr(rounds, "held_out_error", lambda m, *rest: (by_model[id(m)], 0.5, 9.0))
    monkeypatch.setattr(rounds, "register_patient", lambda *rest: ())
    told = []
    found, done = learn_in_rounds(
        [Patient("p", (IMAGE,))],
        [Patient("h", (IMAGE,))],
        model,
        lambda number, before, subjects: models[number],
        replace(CONFIG, most=3),
        report=told.append,
    )
    assert [r.number for r in done] == list(range(ran + 1)) == [r.number for r in told]
    assert [r.held_out_mm for r in done] == errors[: ran + 1]
    assert found is models[best]


def test_held_out_error_is_that_of_known_motions(model):
    """Small for the same anatomy, of the order of the image for another."""
    own = held_out_error(model, [Patient("h", (IMAGE, IMAGE))], CONFIG)
    other = held_out_error(model, [Patient("h", (IMAGE, STRANGER))], CONFIG)
    sweep = held_out_error(model, [Patient("h", (IMAGE,), sweeps=(IMAGE,))], CONFIG)
    assert own[0] < other[0] / 2
    assert own[1] > 0.4 > other[1]
    assert sweep[0] < other[0] / 2
    assert own[0] <= own[2] < other[2]  # nearest neighbours alone are worse


def test_a_registered_sweep_is_shown_where_it_lies():
    """Its views are the sweep itself, at the right place of the subject."""
    from CrossKEYLib.training.universal.views import Echoes, read_subject, sample_at

    subject = read_subject("p", [IMAGE])
    half = IMAGE.array.clone()
    half[:, :, 30:] = 0
    sweep = IMAGE.replaced(half).moved(transform.from_parts(np.eye(3), -subject.origin))
    ones = IMAGE.replaced(torch.ones_like(IMAGE.array))
    shown = ones.moved(transform.from_parts(np.eye(3), -subject.origin))
    echoes = Echoes(None, shown, (sweep,))  # type: ignore[arg-type]  # anatomy is for simulation
    generator = torch.Generator().manual_seed(0)
    config = ViewConfig(24.0, 2.0, ultrasound_share=1.0, cut_share=0.0)
    _, view = draw_views(replace(subject, echoes=echoes), config, generator, 0.0)
    where = view.places.flatten(1).T
    expected = sample_at(sweep.array[None], where).reshape(view.image.shape)
    filled = (view.image > 0) & (expected > 0.05)
    assert filled.float().mean() > 0.1
    pair = torch.stack([view.image[filled], expected[filled]])
    assert torch.corrcoef(pair)[0, 1] > 0.97  # but for the tone, which is changed


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, volume in (("a", IMAGE), ("b", APART), ("h", texture(40, seed=5))):
        write_volume(volume, folder / f"{name}.nii.gz")
    path = folder / "rounds.yaml"
    path.write_text(yaml.safe_dump(content()))
    return path


def content() -> dict:
    return {
        **brief_yaml(),
        "rounds": {"most": 2, "initial_steps": 3, "least_gain": -10, "points": 30},
        "patients": [{"name": "a", "images": ["a.nii.gz"], "unregistered": ["b.nii.gz"]}],
        "held_out": [{"name": "h", "images": ["h.nii.gz", "h.nii.gz"]}],
    }


def test_the_command_runs_all_rounds_and_tells_of_them(data, tmp_path, capsys):
    output = tmp_path / "out" / "uae.pt"
    output.parent.mkdir()
    given = ["pretrain", "--kind", "uae", "--data", str(data), "--output", str(output)]
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    assert "round 0: 0 of 0 images registered" in said
    assert "round 2: " in said
    done = json.loads(output.with_suffix(".rounds.json").read_text())
    assert [entry["number"] for entry in done] == [0, 1, 2]
    assert UniversalModel.load(output).history["held_out_mm"].count(",") == 2
    assert {path.name for path in output.parent.iterdir()} == {"uae.pt", "uae.rounds.json"}
    table = unregistered.table([{**entry, "pairs": []} for entry in done])
    assert len(table.splitlines()) == 5


def test_killed_rounds_go_on_as_if_nothing_had_happened(data, tmp_path):
    whole = pretrain_universal(data, tmp_path / "whole.pt")
    steps: list[int] = []

    def kill(progress: Progress) -> None:
        steps.append(progress.step)
        if len(steps) == 5:  # the last step of the first round after the start
            raise Killed

    checkpoint = tmp_path / "x.training.pt"
    with pytest.raises(Killed):
        pretrain_universal(data, tmp_path / "whole.pt", checkpoint=checkpoint, report=kill)
    count = len(steps)
    resumed = pretrain_universal(
        data,
        tmp_path / "whole.pt",
        checkpoint=checkpoint,
        report=lambda progress: steps.append(progress.step),
    )
    assert len(steps) - count < 7  # not all seven again
    assert torch.equal(weights_of(resumed.network), weights_of(whole.network))
    assert not list(tmp_path.glob("*training*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("held_out"), "held_out; list at least one"),
        (lambda c: c.pop("rounds"), "need the section rounds"),
        (lambda c: c["rounds"].update(mots=3), "rounds: unknown key 'mots'"),
        (lambda c: c["patients"][0].update(sweeps="b"), r"\(a\): sweeps: expected a list"),
        (
            lambda c: c["patients"][0].update(unregistered=["no"]),
            r"\(a\): unregistered: there",
        ),
        (lambda c: c.update(held_out=3), "held_out: expected a list"),
    ],
)
def test_yaml_that_cannot_be_used(data, change, message):
    values = content()
    change(values)
    data.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        read_plan(data)


def test_images_taken_apart_are_held_against_the_truth(data, tmp_path, capsys):
    """The table is zero for the true motions, and grows with what is added to them."""
    folder = data.parent
    unregistered.main(
        ["apart", "--images", str(folder / "a.nii.gz"), "--output", str(folder / "apart")]
    )
    (name, motion), *_ = json.loads((folder / "apart" / "truth.json").read_text()).items()
    moved, first = (Volume.read(folder / p) for p in (f"apart/{name}", "a.nii.gz"))
    np.testing.assert_allclose(moved.ijk_to_ras, motion @ first.ijk_to_ras, atol=1e-4)
    values = content()
    values["patients"][0]["unregistered"] = [f"apart/{name}"]
    data.write_text(yaml.safe_dump(values))
    back = np.linalg.inv(motion)
    off = transform.from_parts(np.eye(3), [3.0, 0.0, 4.0]) @ back
    pair = {"patient": "a", "image": 0, "kept": True, "inverse_consistency_mm": 0.1}
    figures = {"held_out_mm": 4.0, "near": 0.5, "nearest_mm": 7.0}
    done = [
        {"number": n, "pairs": [{**pair, "matrix": m.tolist()}], **figures}
        for n, m in ((1, back), (2, off))
    ]
    (folder / "r.json").write_text(json.dumps(done))
    truth = folder / "apart" / "truth.json"
    errors = unregistered.errors(data, folder / "r.json", truth)
    assert errors[0]["pairs"][0]["error_mm"] == pytest.approx(0.0, abs=1e-3)
    assert errors[1]["pairs"][0]["error_mm"] == pytest.approx(5.0, abs=1e-3)
    given = ["table", "--data", str(data), "--rounds", str(folder / "r.json")]
    unregistered.main([*given, "--truth", str(truth)])
    assert (
        "| 2 | 1 of 1 | 5.00 / 5.00 mm | 5.00 mm | 4.00 mm | 50% | 7.00 mm |"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "name", ["uae-rounds.yaml", "uae-rounds-ct.yaml", "uae-rounds-ultrasound.yaml"]
)
def test_examples_are_well_formed_and_hold_out_what_they_say(tmp_path, name):
    """Nobody held out is learned from, and every round has something to register."""
    text = (Path(__file__).parents[4] / "Resources" / "Configs" / name).read_text("utf-8")
    for word in re.findall(r"data/\S+\.nii\.gz", text):
        (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / word).touch()
    (tmp_path / name).write_text(text, "utf-8")
    plan = read_plan(tmp_path / name)
    assert plan.rounds is not None
    assert sum(len(p.unregistered) + len(p.sweeps) for p in plan.patients) >= 2
    learned, kept = ({p.name for p in part} for part in (plan.patients, plan.held_out))
    assert kept
    assert not learned & kept
