"""The evaluation of landmarks: its truths are true, and it measures what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import OffsetModel

from CrossKEYLib.formats.volumes import write_volume
from Testing.Studies import landmarks
from Testing.Studies.landmarks import deformed, halved, table


def test_a_deformed_image_shows_at_each_point_what_its_origin_shows():
    volume = texture(48, grain=3.0)
    moved, back = deformed(volume, seed=1)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 30 + 9
    points = moved.points_ras(points)
    origin = back(points)
    kept = (volume.sample(origin) > 0) & (moved.sample(points) > 0)
    assert kept.sum() > 50
    assert (moved.sample(points) - volume.sample(origin))[kept].abs().mean() < 0.02
    # The bending is more than an affine map explains.
    fit = torch.linalg.lstsq(torch.cat([points, torch.ones(200, 1)], 1), origin).solution
    rest = torch.cat([points, torch.ones(200, 1)], 1) @ fit - origin
    assert 0.2 < rest.norm(dim=1).mean() < 6
    other, _ = deformed(volume, seed=2)
    assert other.shape != moved.shape or not torch.equal(other.array, moved.array)


def test_half_of_the_image_is_left():
    volume = texture(32)
    for seed in range(4):
        part = halved(volume, np.random.default_rng(seed))
        assert float((part.array > 0).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_table_counts_every_outcome():
    landmark = {"task": "a -> b", "method": "nearest", "seed": 0, "seconds": 1.0}
    starts = [
        {"task": "r", "method": "m", "seed": n, "tre_mm": e, "seconds": 2.0}
        for n, e in enumerate((1.0, None, 5.0))
    ]
    lines = table([{**landmark, "errors_mm": [1.0, 2.0, 6.0]}, *starts]).splitlines()
    assert len(lines) == 4
    assert lines[1].count("|") == lines[0].count("|")
    assert "3.00 mm | 2.00 mm" in lines[2]
    assert "67 % of 3" in lines[2]
    assert "| inf mm | 5.00 mm" in lines[3]  # what was not found counts as lost
    assert "33 % of 3" in lines[3]


def test_the_command_measures_all_three_tasks(tmp_path, monkeypatch, capsys):
    """On a texture and its inversion-free second 'contrast', with a made-up model."""
    image = texture(56, grain=3.0)
    kinds = torch.zeros_like(image.array)
    kinds[20:30, 20:30, 20:30], kinds[30:40, 25:35, 25:35] = 3, 8
    names = {"one": image, "two": image.replaced(image.array**1.2)}
    names |= {"labels": image.replaced(kinds)}
    for name, volume in names.items():
        write_volume(volume, tmp_path / f"{name}.nii.gz")
    monkeypatch.setattr(landmarks.UniversalModel, "load", lambda path: OffsetModel())
    monkeypatch.setattr(OffsetModel, "to", lambda self, device: self, raising=False)
    monkeypatch.setattr(landmarks, "MOTION", (4.0, 5.0))
    monkeypatch.setattr(landmarks, "START", (4.0, 5.0))
    monkeypatch.setattr(landmarks, "RIVALS", {"mutual information": "mi"})
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in names}
    given = ["--contrasts", paths["one"], paths["two"], "--atlas", paths["one"]]
    given += ["--labels", paths["labels"], "--subject", paths["two"]]
    given += ["--seeds", "1", "--starts", "1", "--output", str(tmp_path / "out.json")]
    landmarks.main(given)
    outcomes = json.loads((tmp_path / "out.json").read_text())
    tasks = {o["task"] for o in outcomes}
    assert tasks == {
        "one -> two, deformed",
        "2 atlas centres -> other head",
        "register half of two to one",
    }
    centres = [o for o in outcomes if "atlas" in o["task"] and o["method"] == "fixed_point"]
    assert max(centres[0]["errors_mm"]) < 2.0
    bent = [o for o in outcomes if "deformed" in o["task"] and o["method"] == "fixed_point"]
    assert np.median(bent[0]["errors_mm"]) < 3.0
    said = capsys.readouterr().out
    assert (
        said.rstrip().splitlines()[-len(table(outcomes).splitlines()) :]
        == table(outcomes).splitlines()
    )
