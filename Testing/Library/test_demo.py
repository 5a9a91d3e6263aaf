"""The bundled case is what it claims to be, and the demo leaves everything it promises."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms.registered import outcome

from CrossKEYLib import demo
from CrossKEYLib.cli import main
from CrossKEYLib.estimation.target_error import target_errors
from CrossKEYLib.formats.landmarks import read_landmark_pairs
from CrossKEYLib.formats.transforms import read_transform
from CrossKEYLib.geometry import transform
from CrossKEYLib.geometry.volume import Volume
from CrossKEYLib.runtime.resources import resource

CASE = resource("SampleData")
TRUTH = np.array(json.loads((CASE / "truth.json").read_text())["matrix_ras"])
PICTURES = {
    "overlay.png",
    "checkerboard.png",
    "matches.png",
    "matches_3d.png",
    "keypoints.png",
}
PROMISED = {
    "iUS_to_MRI.tfm",
    "report.json",
    *PICTURES,
    "scene.mrml",
    "MRI.nrrd",
    "iUS.nrrd",
    "MRI_keypoints.mrk.json",
    "iUS_keypoints.mrk.json",
}


def test_files_are_those_of_the_readme():
    rows = re.findall(r"\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|", (CASE / "README.md").read_text())
    assert len(rows) == 4
    for name, digest in rows:
        assert hashlib.sha256((CASE / name).read_bytes()).hexdigest() == digest
        assert (CASE / name).stat().st_size < 3e6


def test_misplaced_by_exactly_15_mm_and_15_degrees():
    misplacement = transform.invert(TRUTH)
    ius = Volume.read(CASE / "iUS.nii.gz")
    centre = (TRUTH @ [*ius.centre_ras, 1])[:3]
    assert np.linalg.norm(ius.centre_ras - centre) == pytest.approx(15, abs=1e-3)
    assert transform.rotation_angle_deg(misplacement) == pytest.approx(15, abs=1e-6)


def test_landmarks_lie_in_the_field_of_view_and_agree_with_the_truth():
    fixed, moving = read_landmark_pairs(CASE / "landmarks.csv")
    ius = Volume.read(CASE / "iUS.nii.gz")
    assert len(fixed) == 12
    assert bool((ius.sample(moving, "nearest") > 0).all())
    assert target_errors(TRUTH, fixed, moving).max() < 1e-3
    assert target_errors(np.eye(4), fixed, moving).mean() > 12


class Anything:
    """Stands for a model where registration is replaced."""

    def to(self, device):
        return self


def run_demo(folder: Path, capsys) -> tuple[int, str, set[str]]:
    """Exit status, what was said, and the files that were left."""
    status = main(["demo", "--output", str(folder), "--device", "cpu"])
    said, complained = capsys.readouterr()
    assert complained == ""
    return status, said, {path.name for path in folder.iterdir()}


def test_demo(tmp_path, capsys):
    folder = tmp_path / "a" / "démo"
    status, said, left = run_demo(folder, capsys)
    before, after = (float(x) for x in re.findall(r"error (?:before|after) +([\d.]+) mm", said))
    assert status == 0
    assert before > 12
    assert after < 1
    assert left == PROMISED
    matrix = read_transform(folder / "iUS_to_MRI.tfm")
    fixed, moving = read_landmark_pairs(CASE / "landmarks.csv")
    assert float(target_errors(matrix, fixed, moving).mean()) == pytest.approx(after, abs=0.06)
    assert json.loads((folder / "report.json").read_text())["verdict"] == "accepted"
    assert "scene.mrml in 3D Slicer" in said


def test_a_refused_demo_leaves_no_transform(tmp_path, monkeypatch, capsys):
    """The bundled case is accepted, so its refusal is made up."""

    def refused(fixed, moving, model, *, seed, progress):
        result = outcome(accepted=False)
        points = torch.from_numpy(np.random.default_rng(seed).uniform(-20, 20, (90, 3))).float()
        points += torch.as_tensor(moving.centre_ras, dtype=torch.float32)
        placed = transform.apply(TRUTH, points)
        fixed, moving = (
            replace(d, points=p)
            for d, p in zip((result.fixed, result.moving), (placed, points), strict=True)
        )
        return replace(result, matrix=TRUTH, fixed=fixed, moving=moving)

    monkeypatch.setattr(demo, "register", refused)
    monkeypatch.setattr(demo, "_model", Anything)
    status, said, left = run_demo(tmp_path / "demo", capsys)
    assert status == 3
    assert left == {"report.json", *PICTURES}
    assert "REFUSED" in said
