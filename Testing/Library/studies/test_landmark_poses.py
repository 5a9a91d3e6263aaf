"""The evaluation of landmarks in any pose: what is cut away is gone, and every point is counted."""

from __future__ import annotations

import json

import pytest
import torch
from phantoms.training import texture
from phantoms.universal import OffsetModel

from Testing.Studies import landmark_poses
from Testing.Studies.landmark_poses import shown_or_cut, table


def test_points_beyond_the_cut_are_gone():
    whole = texture(32)
    array = whole.array.clamp_min(0.1)
    array[:16] = 0
    points = whole.points_ras(torch.tensor([[25.0, 16, 16], [6, 16, 16], [16, 16, 16]]))
    assert shown_or_cut(whole.replaced(array), whole, points) == [True, False, None]
    assert shown_or_cut(whole, whole, points) == [True, True, True]


def test_the_table_counts_every_point():
    outcome = {
        "pose": "half of it",
        "method": "fixed_point",
        "errors_mm": [1.0, 3.0, 2.0, 50.0, 60.0, 9.0],
        "found": ["good", "good", "absent", "absent", "check", "good"],
        "there": [True, True, True, False, False, None],
    }
    row = table([outcome]).splitlines()[-1]
    assert "| 2.00 mm | 2.00 mm | 3.00 mm |" in row
    assert "67 % of 3, 50 % of 2" in row
    assert row.endswith("| 33 % of 3 | 50 % of 2 |")


def test_the_command_measures_a_head(tmp_path, monkeypatch, capsys):
    image = texture(48, grain=2.5)
    for name in ("T1", "FLAIR"):
        image.write(tmp_path / f"{name}.nii.gz")
    monkeypatch.setattr(landmark_poses.UniversalModel, "load", lambda path: OffsetModel())
    monkeypatch.setattr(OffsetModel, "to", lambda self, device: self, raising=False)
    monkeypatch.setattr(landmark_poses, "POSES", {"as it lies": 0.0})
    heads = ["--head", str(tmp_path / "T1.nii.gz"), str(tmp_path / "FLAIR.nii.gz")]
    landmark_poses.main([*heads, "--points", "20", "--output", str(tmp_path / "out.json")])
    nearest, fixed_point = json.loads((tmp_path / "out.json").read_text())
    assert (nearest["method"], fixed_point["method"]) == ("nearest", "fixed_point")
    assert max(fixed_point["errors_mm"]) == pytest.approx(0, abs=1.0)
    assert len(fixed_point["found"]) == len(fixed_point["errors_mm"]) == 20
    assert capsys.readouterr().out.rstrip().endswith(table([nearest, fixed_point]))
