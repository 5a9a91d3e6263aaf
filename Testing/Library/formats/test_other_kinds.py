"""Files that are not what their names say: one line each, before anything is computed."""

from __future__ import annotations

import pytest
from phantoms.volumes import noise_volume, refusal

from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.landmarks import read_markups
from CrossKEYLib.formats.options import ReadOptions


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.nrrd", "this is not an NRRD file"),
        ("a.mha", "this is not a MetaImage file"),
        ("a.mhd", "this is not a MetaImage file"),
    ],
)
def test_an_image_of_another_format(tmp_path, name, words):
    path = tmp_path / name
    path.write_text("some other text\n")
    assert words in refusal(path)


def test_samples_of_an_unknown_type(tmp_path):
    path = tmp_path / "a.nii"
    noise_volume().write(path)
    data = bytearray(path.read_bytes())
    data[70:72] = (9999).to_bytes(2, "little")  # the field "datatype" of a NIfTI-1 header
    path.write_bytes(data)
    assert "its sample type is unknown; export it again" in refusal(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,r,a,s\n", "holds no readable points"),
        ("1,2,3,4,5,6\n7,8,9,1,2,3\n", "expected one point list with a header"),
    ],
)
def test_a_table_that_is_no_point_list(tmp_path, text, words):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_markups(path)


def test_options_that_choose_nothing():
    with pytest.raises(InputError, match="frame 0: frames are counted from 1"):
        ReadOptions(frame=0)
    with pytest.raises(InputError, match="'upside down': expected sform or qform"):
        ReadOptions(orientation="upside down")
