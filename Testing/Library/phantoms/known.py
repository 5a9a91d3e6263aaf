"""Figures that a test expects to exist."""

from __future__ import annotations


def known(value: float | None) -> float:
    """The value; a failure where it is missing."""
    assert value is not None
    return value
