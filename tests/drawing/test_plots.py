"""Plots: whole pictures, gaps where a value is not finite, axes that hold everything, and errors for bad input."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from orthogan.drawing import plots
from orthogan.drawing.plots import ALARM, PALETTE, Line, plot_curves, plot_histograms, plot_spectra
from orthogan.errors import UserError
from orthogan.evaluation.spectrum.layer_spectrum import LayerSpectrum, spectrum


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    seen: list[Figure] = []
    whole = Figure.savefig

    def savefig(self: Figure, *args: object, **options: object) -> None:
        seen.append(self)
        whole(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return seen


def line(name: str, *values: float, base: bool = False) -> Line:
    return Line(name, [(float(x), value, value, value) for x, value in enumerate(values)], base)


def axes_of(*lines: Line) -> Axes:
    axes = Figure().subplots()
    plots._curves(axes, lines, lines, [one.name for one in lines])
    return axes


def rgb(color: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(color[1:]))


def colors(path: Path) -> dict[object, int]:
    counts = Image.open(path).convert("RGB").getcolors(2**24)
    assert counts is not None
    return {color: count for count, color in counts}


def pixels(path: Path, color: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a color."""
    rows, columns = np.nonzero((np.asarray(Image.open(path).convert("RGB")) == rgb(color)).all(-1))
    return rows, columns


def words(figure: Figure) -> set[str]:
    found = {text.get_text() for part in [figure, *figure.subfigs] for legend in part.legends for text in legend.texts}
    return found | {axes.get_title(loc="left") for axes in figure.get_axes()}


def test_names_and_titles_are_there_whatever_they_hold(tmp_path: Path, figures: list[Figure]) -> None:
    names = ["<x>", "y & z", "$a_b$", "bytes \udcff", "距离"]
    plot_curves({"a < b & c": [line(name, 1, 2) for name in names]}, tmp_path / "a.png", x_label="images")
    found = words(figures[0])
    assert {"<x>", "y & z", "$a_b$", "bytes \\udcff", "距离", "a < b & c"} <= found
    assert Image.open(tmp_path / "a.png").text == {"orthogan": "curves"}


def test_a_line_is_interrupted_where_it_is_not_finite() -> None:
    drawn, alone = axes_of(line("x", 1, 2, math.inf, 3, 4, math.nan, 5)).lines
    assert np.isfinite(np.asarray(drawn.get_ydata(), float)).tolist() == [True, True, False, True, True, False, True]
    assert list(alone.get_xdata()) == [6]  # a point without neighbors is a dot


def test_the_band_is_drawn_only_where_there_is_one() -> None:
    wide = Line("x", [(0.0, 1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 4.0)])
    assert len(axes_of(wide, line("y", 1, 2)).collections) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=9))
def test_all_points_lie_within_the_axes(values: list[float]) -> None:
    axes = axes_of(line("x", *values))
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left <= 0
    assert right >= len(values) - 1
    assert low <= min(values) <= max(values) <= high


def test_values_over_many_decades_get_a_log_axis_and_negative_ones_never() -> None:
    assert axes_of(line("x", 0.001, 1000.0)).get_yscale() == "log"
    assert axes_of(line("x", -0.001, 1000.0)).get_yscale() == "linear"
    assert axes_of(line("x", 0.0, 1000.0)).get_yscale() == "linear"


def test_without_points_there_is_still_a_picture(tmp_path: Path) -> None:
    for name, panels in {"nan": {"a": [line("x", math.nan)]}, "empty": {"a": []}, "one": {"a": [line("x", 1)]}}.items():
        assert Image.open(plot_curves(panels, tmp_path / f"{name}.png", x_label="images")).size > (100, 100)


def test_many_names_are_spread_over_columns_with_the_baseline_in_each(tmp_path: Path, figures: list[Figure]) -> None:
    lines = [line(f"row{i}", 1.0, i, base=i == 0) for i in range(14)]
    plot_curves({"loss": lines, "error": lines}, tmp_path / "a.png", x_label="images")
    parts = figures[0].subfigs
    legends = [[text.get_text() for legend in part.legends for text in legend.texts] for part in parts]
    assert len(legends) == 3
    assert all("row0" in legend for legend in legends)
    assert sorted(name for legend in legends for name in legend if name != "row0") == sorted(
        f"row{i}" for i in range(1, 14)
    )
    assert len({axes.get_ylim() for axes in figures[0].get_axes()}) == 1  # the same axes in every column


def test_no_word_of_a_legend_is_cut_off(tmp_path: Path, figures: list[Figure]) -> None:
    name = "a very long name of a method " * 4
    plot_curves({"loss": [line(f"{name}{i}", 1.0, i) for i in range(4)]}, tmp_path / "a.png", x_label="images")
    box = figures[0].subfigs[0].legends[0].get_window_extent()
    width, height = Image.open(tmp_path / "a.png").size
    assert width >= box.width
    assert height >= box.height


def test_the_same_data_give_the_same_bytes_and_the_users_settings_stay(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    files = [plot_curves({"a": [line("x", 1, 2)]}, tmp_path / name, x_label="images") for name in ("a.png", "b.png")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_imported_by_what_draws_alone() -> None:
    code = "import sys, orthogan.drawing.plots; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def drawn(panels: dict[str, dict[str, np.ndarray]], path: Path, *, shared: bool = True) -> Path:
    return plot_histograms(panels, path, title="a title", x_label="x", shared=shared)


def test_a_series_further_right_is_drawn_further_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(1, 0.1, 2000), rng.normal(3, 0.1, 2000)
    path = drawn({"all": {"low": low, "high": high}}, tmp_path / "deep" / "a.png")
    found = [np.median(pixels(path, color)[1]) for color in PALETTE[:2]]
    assert found[0] < Image.open(path).width / 2 < found[1]
    assert len(pixels(path, PALETTE[0])[0]) > 200


def test_panels_share_an_axis_or_have_their_own(tmp_path: Path, figures: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    panels = {"near": {"a": rng.uniform(0, 1, 500)}, "far": {"a": rng.uniform(50, 100, 500)}}
    for shared in (True, False):
        drawn(panels, tmp_path / f"{shared}.png", shared=shared)
    together, own = ([axes.get_xlim() for axes in figure.get_axes()] for figure in figures)
    assert together[0] == together[1]
    assert own[0][1] <= 1
    assert own[1][0] >= 50


def test_the_file_says_what_it_is_and_one_value_is_drawn_too(tmp_path: Path) -> None:
    path = drawn({"p": {"one": np.ones(3), "zero": np.zeros(1)}}, tmp_path / "a.png")
    assert Image.open(path).text == {"orthogan": "histograms", "subject": "a title"}
    assert len(pixels(drawn({"p": {"one": np.full(5, 2.5)}}, tmp_path / "b.png"), PALETTE[0])[0]) > 100


@pytest.mark.parametrize(
    ("panels", "name", "message"),
    [
        ({}, "a.png", "nothing to draw"),
        ({"p": {}}, "a.png", "nothing to draw"),
        ({"p": {"a": np.zeros(0)}}, "a.png", "p, a: cannot draw"),
        ({"p": {"a": np.array([1.0, np.nan])}}, "a.png", "NaN"),
        ({"p": {str(i): np.zeros(1) for i in range(9)}}, "a.png", "at most 8"),
        ({"p": {"a": np.zeros(1)}}, "a.pdf", r"\.png"),
    ],
)
def test_histograms_that_cannot_be_drawn_are_refused(
    panels: dict[str, dict[str, np.ndarray]], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        drawn(panels, tmp_path / name)


def measured(module: nn.Module) -> LayerSpectrum:
    (row,) = spectrum(module)
    return row


def linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(*matrix.shape[::-1], bias=False)
    layer.weight = nn.Parameter(matrix)
    return layer


def test_the_picture_shows_each_layer_and_marks_missing_rank_in_red(tmp_path: Path) -> None:
    torch.manual_seed(0)
    good = [measured(nn.Linear(40, 30)), measured(nn.Linear(1, 1)), measured(nn.Conv2d(30, 40, 3))]
    path = plot_spectra(good, tmp_path / "deep" / "a.png", title="a net")
    assert Image.open(path).text == {"orthogan": "spectrum", "subject": "a net"}
    seen = colors(path)
    assert max(seen, key=lambda color: seen[color]) == (255, 255, 255)
    assert seen[rgb(PALETTE[0])] > 500
    assert rgb(ALARM) not in seen
    poor = [measured(linear(torch.diag(torch.tensor([1.0, 0.5, 0.0])))), measured(linear(torch.zeros(2, 2)))]
    assert colors(plot_spectra(poor, tmp_path / "b.png"))[rgb(ALARM)] > 100


def test_a_flat_spectrum_is_a_flat_line_and_a_geometric_one_a_straight_line(tmp_path: Path) -> None:
    rows, columns = pixels(plot_spectra([measured(linear(torch.eye(40)))], tmp_path / "a.png"), PALETTE[0])
    assert np.ptp(rows) <= 8
    assert np.ptp(columns) > 300
    tilted = measured(linear(torch.diag(torch.logspace(0, -1, 40))))
    rows, columns = pixels(plot_spectra([tilted], tmp_path / "b.png"), PALETTE[0])
    slope, offset = np.polyfit(columns, rows, 1)  # falling to the right
    assert slope > 0.1
    assert np.abs(rows - slope * columns - offset).max() < 8


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_panels_for_any_number_of_layers_and_any_scale(count: int, tmp_path: Path) -> None:
    rows = [measured(linear(torch.eye(3) * 10.0 ** (i % 9 - 4))) for i in range(count)]
    width, height = Image.open(plot_spectra(rows, tmp_path / "a.png")).size
    assert width < 6000
    assert height < 6000


def test_spectra_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        plot_spectra([], tmp_path / "a.png")
    with pytest.raises(UserError, match=r"\.png"):
        plot_spectra([measured(nn.Linear(2, 2))], tmp_path / "a.pdf")
