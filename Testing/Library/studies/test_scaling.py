"""How time grows with size: registrations really run, each setting in a process of its own."""

from __future__ import annotations

import json

import numpy as np

from CrossKEYLib.geometry.volume import Grid, Volume
from CrossKEYLib.runtime.resources import resource
from Testing.Studies import scaling


def test_each_setting_is_registered_and_told(tmp_path, capsys):
    """The bundled MRI at 2 mm: once at 3 mm with the usual points, once as it is with few."""
    whole = Volume.read(resource("SampleData/MRI.nii.gz"))
    mri = whole.resample(Grid.around(whole.corners_ras(), 2.0))
    mri.write(tmp_path / "mri.nii.gz")
    output = tmp_path / "out.json"
    given = ["--mri", str(tmp_path / "mri.nii.gz"), "--output", str(output), "--threads", "1"]
    scaling.main([*given, "--spacing-mm", "3", "--points", "500", "--repeats", "1"])
    (sized,), (few,) = json.loads(output.read_text()).values()
    assert few["voxels"] == np.prod(mri.shape)
    assert sized["voxels"] == np.prod(Grid.around(mri.corners_ras(), 3.0).shape)
    assert (few["points"], sized["points"]) == (500, 8000)
    for row in (sized, few):
        assert row["accepted"] == 1
        assert row["places"] > 50_000  # the whole brain is described
        assert row["warm_s"] > 0.1
        assert 300 < row["peak_mb"] < 8000
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert told[3].startswith(f"| {few['voxels'] / 1e6:.1f} M | {few['places']:.0f} | 500 |")
    assert f"| {few['cold_s']:.1f} s | {few['warm_s']:.1f} s |" in told[3]
