"""The network that tells simulated from real ultrasound: it finds what is there, and only that."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from phantoms.training import texture

from CrossKEYLib.errors import InputError
from CrossKEYLib.geometry.volume import Volume
from Testing.Studies import realism_classifier
from Testing.Studies.realism_classifier import ClassifierConfig, cubes_of, judged

CONFIG = ClassifierConfig(cube_mm=8, cubes=60, folds=2, steps=60, batch=16, width=4)


def cubes(seeds: range, grain: float) -> list[torch.Tensor]:
    return [cubes_of(texture(32, seed=s, grain=grain), CONFIG, s, False) for s in seeds]


def test_another_texture_is_told_and_the_same_is_not():
    fine, alike = cubes(range(4), 1.2), cubes(range(4, 8), 1.2)
    coarse = cubes(range(8, 12), 2.5)
    different, same = judged(fine, coarse, CONFIG), judged(fine, alike, CONFIG)
    assert different.accuracy > 0.7
    assert different.auc > 0.9
    assert abs(same.accuracy - 0.5) < 0.15
    assert 0.3 < same.auc < 0.7


def test_cubes_lie_in_the_field_of_view_and_are_smoothed_on_request():
    volume = texture(40, grain=1.0)
    half = volume.array.clone()
    half[:, :, 20:] = 0
    found = cubes_of(volume.replaced(half), CONFIG, 0, False)
    assert 10 < len(found) <= CONFIG.cubes
    assert (found > 0).float().mean((1, 2, 3)).min() >= realism_classifier.LEAST_FILLED - 1e-3
    smooth = cubes_of(volume.replaced(half), CONFIG, 0, True)
    assert smooth.std() < 0.8 * found.std()
    assert len(cubes_of(Volume(half[:6], volume.ijk_to_ras), CONFIG, 0, False)) == 0


def test_too_few_volumes_are_refused():
    few = cubes(range(1), 1.2)
    with pytest.raises(InputError, match="1 real volumes hold cubes of 8 mm; at least 2"):
        judged(few, few * 2, CONFIG)


def test_the_command_judges_with_and_without_speckle(tmp_path, monkeypatch, capsys):
    for n in range(2):
        texture(32, seed=n, grain=1.2).write(tmp_path / f"us{n}.nii.gz")
    made = [(texture(32, seed=9 + n, grain=2.5), np.eye(3)) for n in range(2)]
    monkeypatch.setattr(realism_classifier, "draw", lambda patients, count, generator: made)
    monkeypatch.setattr(realism_classifier, "ClassifierConfig", lambda: CONFIG)
    real = [str(tmp_path / f"us{n}.nii.gz") for n in range(2)]
    output = tmp_path / "out.json"
    given = ["--real", *real, "--mri", real[0], "--count", "2", "--output", str(output)]
    realism_classifier.main(given)
    found = json.loads(output.read_text())
    assert set(found) == {"as the encoder sees it", "without speckle"}
    assert capsys.readouterr().out.count("accuracy") == 2
    with pytest.raises(SystemExit, match="2"):
        realism_classifier.main([*given[:1], str(tmp_path / "no.nii"), *given[3:]])
