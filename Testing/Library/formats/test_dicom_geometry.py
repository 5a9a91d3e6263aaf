"""Positions of DICOM slices from their own headers, and what is wrong with those that have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from CrossKEYLib.errors import InputError
from CrossKEYLib.formats.dicom_geometry import Plane, lps_of, stated

ROWS = np.array([[0.0, 1, 0], [0, 0, -1]])  # sagittal: columns towards P, rows downwards
SPACING = np.array([0.5, 0.8])


def planes(count: int = 5, step_mm: float = 1.5) -> list[Plane]:
    return [Plane(np.array([step_mm * n, -20, 30]), ROWS, SPACING) for n in range(count)]


def test_slices_in_any_order_give_one_matrix():
    """A step along R is a step along the third index; the first index goes along a row."""
    given = planes()
    order, matrix = lps_of([given[n] for n in (3, 0, 4, 2, 1)])
    steps = {tuple(np.round(matrix[:3, 2], 6))}
    assert steps <= {(1.5, 0, 0), (-1.5, 0, 0)}
    first = given[0 if matrix[0, 2] > 0 else 4]
    np.testing.assert_allclose(matrix[:3, 3], first.position)
    np.testing.assert_allclose(matrix[:3, :2].T, ROWS * SPACING[:, None])
    placed = [[3, 0, 4, 2, 1][n] for n in order]
    assert placed in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])


def test_slices_that_make_no_stack_are_refused():
    one = planes()
    turned = np.array([[0.0, 1, 0], [0.1, 0, -np.sqrt(0.99)]])
    for wrong, message in (
        ([*one[:4], replace(one[4], rows=turned)], "not parallel; give a folder with one stack"),
        ([*one[:4], replace(one[4], spacing=2 * SPACING)], "differ in pixel spacing"),
        ([*one[:2], *one[3:]], "not evenly spaced"),
        ([*one, one[2]], "not evenly spaced"),
    ):
        with pytest.raises(InputError, match=message):
            lps_of(wrong)


@pytest.mark.parametrize(
    ("place", "axes", "spacing", "message"),
    [
        (None, [1, 0, 0, 0, 1, 0], [1, 1], r"position \(Image Position\)"),
        ([0, 0], [1, 0, 0, 0, 1, 0], [1, 1], r"position \(Image Position\)"),
        ([0, 0, 0], None, [1, 1], r"orientation \(Image Orientation\)"),
        ([0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1], "not two perpendicular axes"),
        ([0, 0, 0], [2, 0, 0, 0, 1, 0], [1, 1], "not two perpendicular axes"),
        ([0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 0], "pixel spacing is zero"),
        ([0, 0, 0], [1, 0, 0, 0, 1, 0], None, r"spacing \(Pixel Spacing\)"),
    ],
)
def test_a_header_that_states_no_place_is_named(place, axes, spacing, message):
    with pytest.raises(InputError, match=message):
        stated(place, axes, spacing)


def test_the_spacing_between_rows_comes_first():
    _, _, spacing = stated([0, 0, 0], [1, 0, 0, 0, 1, 0], [0.8, 0.5])
    np.testing.assert_array_equal(spacing, [0.5, 0.8])  # between columns, between rows
