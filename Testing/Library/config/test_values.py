"""Settings: what is misspelt, of the wrong kind or out of range is named with file and key."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import pytest
import yaml

import CrossKEYLib.config as config
from CrossKEYLib.config import (
    MatchConfig,
    RegisterConfig,
    Settings,
    TrainConfig,
    UniversalTrainConfig,
    from_mapping,
    read_yaml,
)
from CrossKEYLib.config.values import Count, Positive, Range, Share
from CrossKEYLib.errors import InputError


@dataclass(frozen=True)
class Inner(Settings):
    share: Share = 0.5


@dataclass(frozen=True)
class Sample(Settings):
    rate: Positive = 0.5
    count: Count = 3
    flag: bool = True
    name: str = "a"
    limit: Positive | None = 2.0
    most: Annotated[float, Range(0, infinite=True)] = 1.0
    kind: Literal["one", "two"] = "one"
    levels: tuple[Positive, ...] = (1.0,)
    ends: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner()


def test_missing_keys_keep_their_defaults_and_numbers_are_understood():
    found = from_mapping(
        Sample,
        {"rate": "1e-3", "count": 4.0, "flag": False, "limit": None, "levels": [2, 1]},
        "a.yaml: x",
    )
    assert found == Sample(1e-3, 4, False, "a", None, levels=(2.0, 1.0))
    assert isinstance(from_mapping(Sample, {"rate": 2}, "x").rate, float)
    assert from_mapping(Sample, {"most": "inf"}, "x").most == math.inf
    nested = from_mapping(Sample, {"inner": {"share": 1}, "kind": "two", "ends": [-1, 1]}, "x")
    assert nested == Sample(kind="two", ends=(-1.0, 1.0), inner=Inner(1.0))


WRONG = [
    ({"rat": 1}, "a.yaml: x: unknown key 'rat'; known keys: count, ends, flag, inner"),
    ({"rate": "fast"}, "a.yaml: x.rate: expected a number, got 'fast'"),
    ({"rate": True}, "a.yaml: x.rate: expected a number, got True"),
    ({"rate": float("nan")}, "a.yaml: x.rate: expected a number, got nan"),
    ({"rate": None}, "a.yaml: x.rate: expected a number, got None"),
    ({"rate": 0}, "a.yaml: x.rate: expected a number above 0, got 0"),
    ({"rate": "inf"}, "a.yaml: x.rate: expected a number above 0, got inf"),
    ({"count": 2.5}, "a.yaml: x.count: expected a whole number, got 2.5"),
    ({"count": 0}, "a.yaml: x.count: expected at least 1, got 0"),
    ({"count": "inf"}, "a.yaml: x.count: expected a whole number, got 'inf'"),
    ({"flag": 1}, "a.yaml: x.flag: expected true or false, got 1"),
    ({"name": 3}, "a.yaml: x.name: expected text, got 3"),
    ({"limit": []}, "a.yaml: x.limit: expected a number, got []"),
    ({"limit": -1}, "a.yaml: x.limit: expected a number above 0, got -1"),
    ({"kind": "three"}, "a.yaml: x.kind: expected one or two, got 'three'"),
    ({"levels": 3}, "a.yaml: x.levels: expected a list, got 3"),
    ({"levels": []}, "a.yaml: x.levels: expected a list, got []"),
    ({"levels": [1, -1]}, "a.yaml: x.levels: expected a number above 0, got -1"),
    ({"ends": [1]}, "a.yaml: x.ends: expected 2 entries, got [1]"),
    ({"inner": {"share": 2}}, "a.yaml: x.inner.share: expected a number from 0 to 1, got 2"),
    ({"inner": 3}, "a.yaml: x.inner: expected settings as 'key: value' lines, got 3"),
    ([1], "a.yaml: x: expected settings as 'key: value' lines, got [1]"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_values_are_refused_in_one_line(values, message):
    with pytest.raises(InputError) as caught:
        from_mapping(Sample, values, "a.yaml: x")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_values_given_in_python_are_checked_likewise():
    with pytest.raises(InputError, match=r"MatchConfig\.ratio: expected a number above 0 to 1"):
        MatchConfig(ratio=1.5)
    with pytest.raises(InputError, match=r"expected nearest or mutual or ratio or cycle, got 'x'"):
        MatchConfig(method="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"RegisterConfig\.gate_share: .* got 0"):
        replace(RegisterConfig(), gate_share=0.0)


def test_values_that_exclude_each_other_name_the_file_too():
    with pytest.raises(InputError, match=r"^a\.yaml: x\.position_farthest_mm: expected at least"):
        from_mapping(TrainConfig, {"position_farthest_mm": 1}, "a.yaml: x")


def test_a_key_without_meaning_is_let_through():
    assert from_mapping(Sample, {"unused": "anything"}, "x", {"unused"}) == Sample()


def test_every_settings_class_of_the_library_checks_itself():
    """A field without a check would accept a text, whatever it is meant to hold."""
    classes = [getattr(config, name) for name in config.__all__ if name.endswith("Config")]
    assert len(classes) > 15
    for cls in classes:
        for field in fields(cls):
            if field.name in ("patch_axes", "model"):
                continue  # texts: the axes are checked where they are used, the model is a path
            with pytest.raises(InputError, match=rf"^{cls.__name__}\.{field.name}: expected "):
                cls(**{field.name: "no such value"})


@pytest.mark.parametrize("key", ["mri_share", "position_weight", "position_places"])
def test_settings_that_the_embedding_does_not_use_are_refused(key):
    with pytest.raises(InputError, match=f"unknown key '{key}'"):
        from_mapping(UniversalTrainConfig, {key: 1}, "uae.yaml: training")


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


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rate: 1e-3")
    assert isinstance(yaml.safe_load(path.read_text())["rate"], str)
    assert from_mapping(Sample, read_yaml(path), "x").rate == 1e-3
