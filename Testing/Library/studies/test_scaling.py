"""How time grows with size: every setting is measured once, on images that really differ."""

from __future__ import annotations

import json

import torch
from phantoms.heads import block, mottled

from CrossKEYLib.geometry.volume import Volume
from Testing.Studies import scaling


def test_every_size_and_number_is_measured(monkeypatch, tmp_path, capsys):
    grid = block()
    mri = Volume(mottled(grid), grid.ijk_to_ras)
    mri.write(tmp_path / "mri.nii.gz")
    seen = []

    def apart(path, folder, points, threads):
        volume, ius = Volume.read(path), Volume.read(folder / "ius.nii.gz")
        filled = float((ius.array > 0).sum()) * scaling.SIMULATED_MM**3 / 1000
        seen.append((volume.shape, points, filled, threads))
        figures = {"voxels": 2.5e6, "places": 9.0, "points": points, "cold_s": 8.04}
        return {**figures, "warm_s": 2.51, "peak_mb": 1536.0, "accepted": 1.0}

    monkeypatch.setattr(scaling, "_apart", apart)
    output = tmp_path / "out.json"
    scaling.main(["--mri", str(tmp_path / "mri.nii.gz"), "--output", str(output), "--threads", "1"])
    shapes, points, filled, threads = zip(*seen, strict=True)
    sizes = [torch.tensor(shape).prod().item() for shape in shapes]
    count = len(scaling.SPACINGS_MM)
    assert sizes[:count] == sorted(sizes[:count])
    assert len(set(sizes[:count])) == count
    assert points[count:] == scaling.POINTS
    assert set(shapes[count:]) == {mri.shape}
    assert min(filled) >= scaling.LEAST_ML
    assert set(threads) == {1}
    assert len(json.loads(output.read_text())["points"]) == len(scaling.POINTS)
    assert "| 2.5 M | 9 | 500 | 8.0 s | 2.5 s | 1.5 GB |" in capsys.readouterr().out
