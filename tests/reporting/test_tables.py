from __future__ import annotations

import pytest

from dfssd.reporting import tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (tables.format_number(0.12345), "0.123"),
        (tables.format_number(0.5, 2), "0.50"),
        (tables.format_number(1260), "1260"),
        (tables.format_number("mffmetal-30"), "mffmetal-30"),
        (tables.format_number(None), "-"),
        (tables.format_significant(0.00012345), "0.00012"),
        (tables.format_significant(None), "-"),
        (tables.format_difference(2.34e-6), "2.3e-06"),
        (tables.format_difference(None), "not a finite number"),
        (tables.format_gain(0.5, 0.25), "+0.250"),
        (tables.format_gain(0.25, 0.5), "-0.250"),
        (tables.format_gain(None, 0.5), "-"),
        (tables.format_gain(0.5, None), "-"),
        (tables.format_count(1_234_567), "1,234,567"),
        (tables.format_count(None), "-"),
        (tables.format_share(0.415), "42%"),
        (tables.format_share(None), "-"),
        (tables.format_duration(119.4), "119 s"),
        (tables.format_duration(120), "2 min"),
        (tables.format_duration(None), "-"),
    ],
)
def test_numbers_as_people_read_them(text, expected):
    assert text == expected


def test_bar_inside_a_cell_does_not_end_it():
    assert tables.markdown_table(["a", "b"], [["x|y", 1]]) == ["| a | b |", "| --- | --- |", "| x\\|y | 1 |"]
