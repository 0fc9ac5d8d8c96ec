"""Charts: whole SVG, what is named is in it, gaps where a value is not finite, axes that hold everything."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.drawing.chart import HEIGHT, LEFT, TOP, WIDTH, Axes, Line, chart, ticks
from orthogan.studies.curves import charts
from orthogan.studies.curves import curve as mean_curve
from orthogan.studies.table import Entry
from tests.studies.test_table import table

SVG = "{http://www.w3.org/2000/svg}"


def line(name: str, *values: float, base: bool = False) -> Line:
    return Line(name, [(float(x), value, value, value) for x, value in enumerate(values)], base)


def drawn(*lines: Line) -> ElementTree.Element:
    return ElementTree.fromstring(chart(list(lines), Axes.around(lines), title="a < b & c", x_label="images"))


def test_names_and_titles_are_escaped_and_there() -> None:
    words = [text.text for text in drawn(line("<x>", 1, 2), line("y & z", 2, 1)).iter(f"{SVG}text")]
    for word in ("a < b & c", "<x>", "y & z", "images"):
        assert word in words


def test_a_line_is_interrupted_where_it_is_not_finite() -> None:
    found = drawn(line("x", 1, 2, math.inf, 3, 4, math.nan, 5))
    assert len(list(found.iter(f"{SVG}polyline"))) == 2
    assert len(list(found.iter(f"{SVG}circle"))) == 1


def test_the_band_is_drawn_only_where_there_is_one() -> None:
    wide = Line("x", [(0.0, 1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 4.0)])
    assert len(list(drawn(wide, line("y", 1, 2)).iter(f"{SVG}polygon"))) == 1


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=9))
def test_all_points_lie_within_the_axes(values: list[float]) -> None:
    axes = Axes.around([line("x", *values)])
    for x, value in enumerate(values):
        across, down = axes.place(x, value)
        assert LEFT - 1e-6 <= across <= WIDTH
        assert TOP - 1e-6 <= down <= HEIGHT


def test_values_over_many_decades_get_a_log_axis_and_negative_ones_never() -> None:
    assert Axes.around([line("x", 0.001, 1000.0)]).log
    assert not Axes.around([line("x", -0.001, 1000.0)]).log
    assert not Axes.around([line("x", 0.0, 1000.0)]).log


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, 12.0, False, [0, 5, 10]),
        (0.02, 300.0, True, [0.1, 1, 10, 100]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, expected: list[float]) -> None:
    assert ticks(low, high, log=log) == pytest.approx(expected)


def test_without_points_there_is_still_a_chart() -> None:
    assert drawn(line("x", math.nan)).tag == f"{SVG}svg"


def curve(row: str, seed: int, *points: tuple[float, float]) -> Entry:
    return Entry(row, seed, Path(row), curves={"loss": points})


def test_a_row_is_the_mean_over_its_seeds_where_all_have_a_value() -> None:
    found = table([curve("a", 0, (0, 1.0), (1, 2.0)), curve("a", 1, (0, 3.0), (1, 8.0), (2, 9.0))])
    drawn = mean_curve(found, "a", "loss")
    assert drawn is not None
    assert drawn.points == [(0, 1.0, 2.0, 3.0), (1, 2.0, 5.0, 8.0)]
    assert drawn.base


def test_many_rows_are_spread_over_charts_with_the_baseline_in_each() -> None:
    found = table([curve(f"row{i}", 0, (0, float(i)), (1, 1.0)) for i in range(14)])
    made = charts(found, "loss", "images")
    assert len(made) == 3
    assert all(">row0<" in svg for svg in made)
    assert all(sum(f">row{i}<" in svg for svg in made) == 1 for i in range(1, 14))
