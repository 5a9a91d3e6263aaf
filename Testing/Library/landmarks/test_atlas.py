"""Labels carried to another head, and training that asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from phantoms.training import texture, weights_of
from phantoms.universal import OffsetModel, brief_yaml

from CrossKEYLib.errors import EstimationError, InputError
from CrossKEYLib.formats.volumes import write_volume
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.landmarks.atlas import carry_labels
from CrossKEYLib.training.universal import pretrain
from CrossKEYLib.training.universal.pretrain import AtlasFiles, pretrain_universal, read_plan
from CrossKEYLib.training.universal.rounds import subject_of
from Testing.Studies import carried_labels

ATLAS = texture(56, grain=2.5)
MOTION = transform.random_rigid(np.random.default_rng(3), 8.0, 5.0, ATLAS.centre_ras)
SMALLER = MOTION @ np.diag([0.94, 0.97, 0.95, 1.0])  # another head, of another size
HEAD = ATLAS.replaced(0.9 * ATLAS.array**1.2).moved(SMALLER)


class Stays(OffsetModel):
    """Remains what it is on every device."""

    def to(self, device) -> Stays:
        return self


@pytest.fixture(scope="module")
def model() -> OffsetModel:
    return Stays()


@pytest.fixture(scope="module")
def labels() -> Volume:
    kinds = torch.zeros_like(ATLAS.array)
    kinds[16:30, 16:40, 14:28], kinds[30:42, 16:40, 28:44] = 3, 8
    return ATLAS.replaced(kinds)


def test_labels_lie_where_the_anatomy_went(model, labels):
    """The head was moved and scaled: laid by a rigid motion the blocks would be off."""
    carried = carry_labels(ATLAS, labels, HEAD, model)
    assert carried.shape == HEAD.shape
    assert set(carried.array.unique().tolist()) == {0, 3, 8}
    for kind in (3, 8):  # head and atlas have the same samples, only their worlds differ
        a, b = carried.array == kind, labels.array == kind
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


@pytest.fixture
def strict(monkeypatch):
    """The inverse consistency error is 0.6 mm here: too far for this limit. How far they
    lie apart with an image that does not belong is chance, and differs between processors."""
    monkeypatch.setattr("CrossKEYLib.landmarks.atlas.MOST_INCONSISTENCY_MM", 0.1)


def test_a_place_that_is_not_certain_is_refused(model, labels, strict):
    with pytest.raises(EstimationError, match=r"could not be laid on the image: .* 0\.\d mm apart"):
        carry_labels(ATLAS, labels, HEAD, model)


@pytest.fixture
def listed(tmp_path, labels):
    """A list of one patient whose labels an atlas has."""
    for name, volume in {"head": HEAD, "atlas": ATLAS, "labels": labels}.items():
        write_volume(volume, tmp_path / f"{name}.nii.gz")
    patient = {"name": "p", "images": ["head.nii.gz"]}
    patient["atlas"] = {"image": "atlas.nii.gz", "labels": "labels.nii.gz"}

    def write(**changed) -> str:
        values = {**brief_yaml(), "patients": [{**patient, **changed}]}
        values["training"]["save_seconds"] = 0.0
        path = tmp_path / "list.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_training_learns_from_carried_labels(listed, tmp_path, model, monkeypatch):
    """The subject has the structures where this head has them, and they change what is learned."""
    seen = []
    monkeypatch.setattr(pretrain.UniversalModel, "load", lambda *rest: model)
    monkeypatch.setattr(
        pretrain, "subject_of", lambda p, rest=(): seen.append(p) or subject_of(p, rest)
    )
    path = listed()
    (patient,) = read_plan(path).patients
    assert patient.atlas == AtlasFiles(tmp_path / "atlas.nii.gz", tmp_path / "labels.nii.gz")
    with_it = pretrain_universal(path, tmp_path / "a.pt", steps=6)
    assert set(seen[0].labels.array.unique().tolist()) == {0, 3, 8}
    without = pretrain_universal(listed(atlas=None), tmp_path / "b.pt", steps=6)
    assert seen[1].labels is None
    assert not torch.equal(weights_of(with_it.network), weights_of(without.network))


def test_a_killed_run_goes_on_though_labels_are_carried_anew(listed, tmp_path, model, monkeypatch):
    """Another registration may lay a voxel elsewhere; the images are the same, so the run is."""
    monkeypatch.setattr(pretrain.UniversalModel, "load", lambda *rest: model)
    path, checkpoint = listed(), tmp_path / "run.pt"

    def kill(progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_universal(path, tmp_path / "m.pt", steps=4, checkpoint=checkpoint, report=kill)
    original = pretrain.carry_labels

    def elsewhere(*given):
        carried = original(*given)
        return carried.replaced(carried.array.roll(1, 0))

    monkeypatch.setattr(pretrain, "carry_labels", elsewhere)
    steps = []
    report = lambda progress: steps.append(progress.step)  # noqa: E731
    pretrain_universal(path, tmp_path / "m.pt", steps=4, checkpoint=checkpoint, report=report)
    assert 1 not in steps
    assert steps[-1] == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"atlas": "atlas.nii.gz"}, "atlas: expected image and labels, got 'atlas.nii.gz'"),
        ({"atlas": {"image": "atlas.nii.gz"}}, "atlas: expected image and labels"),
        ({"atlas": {"image": "no.nii", "labels": "labels.nii.gz"}}, r"there is no .*no\.nii"),
        ({"labels": "labels.nii.gz"}, "labels or an atlas to carry them from, not both"),
    ],
)
def test_a_list_that_cannot_be_used(listed, changed, message):
    with pytest.raises(InputError, match=message):
        read_plan(listed(**changed))


def test_a_patient_that_the_atlas_does_not_fit_is_named(
    listed, tmp_path, model, monkeypatch, strict
):
    monkeypatch.setattr(pretrain.UniversalModel, "load", lambda *rest: model)
    with pytest.raises(InputError, match="patient p: the atlas could not be laid"):
        pretrain_universal(listed(), tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


def test_the_evaluation_tells_carried_from_unmoved(labels, tmp_path, model, monkeypatch, capsys):
    """A brain in the atlas's space and one that lies elsewhere: only carrying hits the second."""
    box = torch.zeros_like(ATLAS.array)
    box[13:45, 13:43, 11:47] = 1
    brain = ATLAS.replaced(ATLAS.array * box)
    images = {"atlas": brain, "labels": labels, "same": brain, "moved": brain.moved(MOTION)}
    for name, volume in images.items():
        write_volume(volume, tmp_path / f"{name}.nii.gz")
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in images}
    monkeypatch.setattr(carried_labels.UniversalModel, "load", lambda path: model)
    given = ["--atlas", paths["atlas"], "--labels", paths["labels"], "--seeds", "1"]
    carried_labels.main([*given, "--images", paths["same"], paths["moved"]])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    unmoved, carried = ([float(row[n].strip(" %")) for row in rows] for n in (2, 3))
    assert unmoved[0] == 100
    assert unmoved[1] < 90
    assert min(carried) > 98
    assert float(rows[0][4]) > 0.8  # Dice with the labels of the same brain
    assert float(rows[0][5].strip(" m")) < 2
