"""The evaluation of landmarks in any pose: what is cut away is gone, and every point is counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from phantoms.training import texture
from phantoms.universal import OffsetModel

from CrossKEYLib.geometry import transform
from Testing.Studies import landmark_poses
from Testing.Studies.landmark_poses import shown_or_cut, table
from Testing.Studies.landmarks import halved


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


@pytest.fixture
def head(tmp_path, monkeypatch):
    """Arguments that measure two images of one head, as they lie."""
    image = texture(48, grain=2.5)
    for name in ("T1", "FLAIR"):
        image.write(tmp_path / f"{name}.nii.gz")
    monkeypatch.setattr(landmark_poses.UniversalModel, "load", lambda path: OffsetModel())
    monkeypatch.setattr(OffsetModel, "to", lambda self, device: self, raising=False)
    monkeypatch.setattr(landmark_poses, "POSES", {"as it lies": (0.0, 1.0)})
    images = [str(tmp_path / name) for name in ("T1.nii.gz", "FLAIR.nii.gz")]
    return ["--head", *images, "--points", "20", "--output", str(tmp_path / "out.json")]


def test_the_command_measures_a_head(head, tmp_path, capsys):
    landmark_poses.main(head)
    nearest, fixed_point = json.loads((tmp_path / "out.json").read_text())
    assert (nearest["method"], fixed_point["method"]) == ("nearest", "fixed_point")
    assert max(fixed_point["errors_mm"]) == pytest.approx(0, abs=1.0)
    assert len(fixed_point["found"]) == len(fixed_point["errors_mm"]) == 20
    assert capsys.readouterr().out.rstrip().endswith(table([nearest, fixed_point]))


def test_a_repeated_command_asks_only_what_is_missing(head, tmp_path, monkeypatch, capsys):
    landmark_poses.main(head)
    shift = transform.from_parts(np.eye(3), [3.0, 0.0, 4.0])
    monkeypatch.setattr(landmark_poses, "registered_by_mutual_information", lambda *images: shift)
    monkeypatch.setattr(landmark_poses, "embedded_pair", lambda *a, **k: pytest.fail("asked again"))
    landmark_poses.main([*head, "--rival"])
    *before, rival = json.loads((tmp_path / "out.json").read_text())
    assert [one["method"] for one in before] == ["nearest", "fixed_point"]
    assert rival["errors_mm"] == pytest.approx([5.0] * 20, abs=1e-4)
    assert "| as it lies | mutual information | 5.00 mm | 5.00 mm | 5.00 mm | says nothing |" in (
        capsys.readouterr().out
    )


def test_a_share_of_the_image_is_left():
    whole = texture(32)
    for share in (1 / 3, 0.5):
        part = halved(whole, np.random.default_rng(1), share)
        assert float((part.array > 0).float().mean()) == pytest.approx(share, abs=0.01)
