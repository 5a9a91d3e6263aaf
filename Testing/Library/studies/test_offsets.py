"""Offsets of results from the landmarks' best fit: known motions come back as they were put in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from phantoms.training import texture
from scipy.spatial.transform import Rotation

from CrossKEYLib.evaluation.misplacements import start_of
from CrossKEYLib.geometry import transform
from Testing.Studies import offsets

TURN, SHIFT = np.array([4.0, -2.0, 1.0]), np.array([0.5, -1.0, 0.2])  # degrees, mm


def test_a_known_offset_comes_back_from_every_start(tmp_path, capsys):
    ius = texture(32)
    moving = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) * 30
    truth = transform.random_rigid(np.random.default_rng(0), 5.0, 6.0, ius.centre_ras)
    fixed = transform.apply(truth, moving)
    middle = fixed.double().mean(0).numpy()
    rotation = Rotation.from_rotvec(TURN, degrees=True).as_matrix()
    off = transform.about(middle, rotation, SHIFT) @ truth
    outcomes = []
    for level, seed, error in (("0 / 0", 0, 1.0), ("20 / 20", 3, 1.5), ("20 / 20", 4, 9.0)):
        start = start_of(level, seed, ius.centre_ras)
        matrix = (off @ transform.invert(start)).tolist()
        outcomes.append({"mri": "m", "method": "x", "level": level, "seed": seed})
        outcomes[-1] |= {"kind": "real", "ius": "u", "tre_mm": error, "matrix_ras": matrix}
    outcomes.append({**outcomes[0], "tre_mm": None, "matrix_ras": None})
    found = offsets.offsets(outcomes, ius, fixed, moving)
    assert list(found) == [("m", "x")]
    assert len(found["m", "x"]) == 2  # what failed says nothing of this
    for row in found["m", "x"]:
        assert row == pytest.approx([*TURN, *SHIFT], abs=0.01)
    ius.write(tmp_path / "ius.nii.gz")
    (tmp_path / "out.json").write_text(json.dumps({"settings": {}, "outcomes": outcomes}))
    pairs = np.hstack([fixed.numpy(), moving.numpy()])
    header = "mri_r,mri_a,mri_s,ius_r,ius_a,ius_s"
    np.savetxt(tmp_path / "pairs.csv", pairs, delimiter=",", header=header, comments="")
    given = ["--outcomes", str(tmp_path / "out.json"), "--ius", str(tmp_path / "ius.nii.gz")]
    offsets.main([*given, "--landmarks", str(tmp_path / "pairs.csv")])
    said = capsys.readouterr().out
    assert "8 landmarks" in said
    assert "| m | x | 2 | +4.0 ± 0.0, -2.0 ± 0.0, +1.0 ± 0.0 | +0.5 ± 0.0, -1.0 ± 0.0" in said
