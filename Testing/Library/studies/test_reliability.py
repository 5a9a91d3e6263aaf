"""Several benchmarks pooled: nothing is counted twice, left out, or under another name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from CrossKEYLib.errors import InputError
from Testing.Studies import reliability


def outcome(kind: str, ius: str, tre: float | None, confidence: float, method: str = "crosskey"):
    values = {"kind": kind, "mri": "m", "ius": ius, "method": method, "level": "0 / 0", "seed": 0}
    values |= {"tre_mm": tre, "start_tre_mm": 1.0, "predicted_tre_mm": 1.0}
    return values | {"confidence": confidence, "accepted": confidence >= 0.5}


@pytest.fixture
def files(tmp_path) -> list[str]:
    parts = [
        [
            outcome("real", "a", 1.0, 0.9),
            outcome("real", "b", 2.0, 0.4),
            outcome("real", "c", 9.0, 0.6),
        ],
        [
            outcome("foreign", "x", None, 0.1),
            outcome("foreign", "site 0, emptied", None, 0.7),
            outcome("foreign", "x", None, 0.2) | {"mri": "m, mirrored"},
            outcome("real", "a", 9.0, 0.9, method="mi"),
        ],
    ]
    paths = []
    for n, part in enumerate(parts):
        path = tmp_path / f"{n}.json"
        path.write_text(json.dumps({"settings": {}, "outcomes": part}))
        paths.append(str(path))
    return paths


def test_every_kind_of_pair_has_its_line(files, tmp_path, capsys):
    picture = tmp_path / "reliability.png"
    reliability.main([*files, "--figure", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| real | 3 | 2 | 2 | 1 of 2 | 1 of 1 | 0.40 | 0.60 |"
    assert lines[3] == "| foreign | 1 | 0 | 0 | 0 of 0 | 0 of 1 |  | 0.10 |"
    emptied = "| simulated, that side of the head emptied | 1 | 0 | 1 | 0 of 0 | 1 of 1 |  | 0.70 |"
    assert lines[4] == emptied
    assert lines[5] == "| real, the MRI mirrored | 1 | 0 | 0 | 0 of 0 | 0 of 1 |  | 0.20 |"
    said = "\n".join(lines)
    assert "| right results refused | 1 of 2 |" in said
    assert "| wrong results accepted | 1 of 1 |" in said
    assert "| foreign pairs accepted | 1 of 3" in said
    assert imread(picture).std() > 0.01


def test_what_is_no_outcome_is_refused(tmp_path):
    stray = tmp_path / "stray.json"
    stray.write_text("[]")
    with pytest.raises(InputError, match="not the outcomes of a benchmark"):
        reliability.main([str(stray)])
    assert Path(stray).read_text() == "[]"
