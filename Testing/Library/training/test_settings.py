"""YAML: what is misspelt or of the wrong kind is named, numbers are taken as they are meant."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.training.settings import read_yaml, section


@dataclass(frozen=True)
class Sample:
    rate: float = 0.5
    count: int = 3
    flag: bool = True
    name: str = "a"
    limit: float | None = 2.0


def test_missing_keys_keep_their_defaults_and_numbers_are_understood():
    found = section(
        Sample, {"rate": "1e-3", "count": 4.0, "flag": False, "limit": None}, "a.yaml: x"
    )
    assert found == Sample(1e-3, 4, False, "a", None)
    assert section(Sample, {"rate": "inf"}, "x").rate == math.inf
    assert isinstance(section(Sample, {"rate": 2}, "x").rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"a\.yaml: x: unknown key 'rat'; known keys: count, flag, .* rate, unused$"),
        ({"rate": "fast"}, r"a\.yaml: x\.rate: expected a number, got 'fast'"),
        ({"rate": True}, "expected a number, got True"),
        ({"rate": ".nan"}, "expected a number"),
        ({"rate": float("nan")}, "expected a number"),
        ({"count": 2.5}, "expected a whole number, got 2.5"),
        ({"count": "inf"}, "expected a whole number"),
        ({"flag": 1}, "expected true or false, got 1"),
        ({"name": 3}, "expected text, got 3"),
        ({"rate": None}, "expected a number, got None"),
        ({"limit": []}, r"expected a number or nothing, got \[\]"),
        ([1], r"expected settings as 'key: value' lines, got \[1\]"),
    ],
)
def test_wrong_values_are_refused_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        section(Sample, values, "a.yaml: x", {"unused"})
    assert "\n" not in str(caught.value)


def test_a_key_without_meaning_is_let_through():
    assert section(Sample, {"unused": "anything"}, "x", {"unused"}) == Sample()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe\x00\x01", "not a text file"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (None, "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
