from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms.volumes import noise_volume, refusal

from CrossKEYLib.errors import InputWarning
from CrossKEYLib.formats.volumes import read_volume


def write_dicom(folder: Path, slices: range, series: str = "1.2.3", tilt: float = 0.0) -> None:
    """Axial slices 2.5 mm apart, in-plane spacing 0.5 mm, optionally with a tilted gantry."""
    folder.mkdir(exist_ok=True)
    array = noise_volume(shape=(40, 12, 15)).array.numpy().astype(np.int16)
    for k in slices:
        image = sitk.GetImageFromArray(array[k])
        image.SetSpacing((0.5, 0.5))
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{series}.{k + 1}",
            "0020|000d": "1.2.9",
            "0020|000e": series,
            "0020|0032": f"-10\\{-20 + tilt * k}\\{30 + 2.5 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(k),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{series}-{99 - k}.dcm"))
        writer.Execute(image)


@pytest.mark.parametrize("tilt", [0.0, 0.75])
def test_dicom_folder(tmp_path, tilt):
    write_dicom(tmp_path / "séries", range(10), tilt=tilt)
    volume = read_volume(tmp_path / "séries")
    assert volume.shape == (10, 12, 15)
    expected = noise_volume(shape=(40, 12, 15)).array[:10].to(torch.int16).float()
    assert torch.equal(volume.array, expected)
    np.testing.assert_allclose(
        volume.ijk_to_ras,
        [[-0.5, 0, 0, 10], [0, -0.5, -tilt, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]],
        atol=1e-6,
    )


def test_dicom_scout_is_passed_over_and_two_scans_are_not(tmp_path):
    write_dicom(tmp_path / "d", range(12))
    write_dicom(tmp_path / "d", range(3), series="1.2.4")
    with pytest.warns(InputWarning, match=r"2 DICOM series; the one with the most slices is read"):
        assert read_volume(tmp_path / "d").shape[0] == 12
    write_dicom(tmp_path / "d", range(11), series="1.2.5")
    said = refusal(tmp_path / "d")
    assert "3 DICOM series or echoes; choose one with --series" in said
    assert "(12 slices)" in said
    assert "(11 slices)" in said


def test_bad_dicom(tmp_path, capfd):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.dcm").write_bytes(b"nothing" * 100)
    assert "holds no readable DICOM image" in refusal(tmp_path / "none")
    assert "truncated, damaged" in refusal(tmp_path / "none" / "a.dcm")
    write_dicom(tmp_path / "gap", range(12))
    (tmp_path / "gap" / "1.2.3-95.dcm").unlink()
    assert "not evenly spaced" in refusal(tmp_path / "gap")
    write_dicom(tmp_path / "cut", range(10))
    cut = tmp_path / "cut" / "1.2.3-95.dcm"
    cut.write_bytes(cut.read_bytes()[:-200])
    assert "DICOM slice is unreadable" in refusal(tmp_path / "cut")
    cut.unlink()
    write_dicom(tmp_path / "cut", range(10))
    last = tmp_path / "cut" / "1.2.3-90.dcm"
    last.write_bytes(last.read_bytes()[:-200])
    assert "DICOM slice is unreadable" in refusal(tmp_path / "cut")
    write_dicom(tmp_path / "one", range(1))
    assert "give the folder that holds all slices" in refusal(tmp_path / "one")
    assert "give the folder that holds all slices" in refusal(tmp_path / "one" / "1.2.3-99.dcm")
    assert capfd.readouterr() == ("", "")
