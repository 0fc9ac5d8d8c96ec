"""Histograms: every series has its colour, its mean its line, and what cannot be drawn is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.drawing.histograms import COLOURS, HEIGHT, LEFT, WIDTH, plot
from orthogan.errors import UserError


def drawn(panels: dict[str, dict[str, np.ndarray]], path: Path, **options: object) -> np.ndarray:
    return np.asarray(Image.open(plot(panels, path, title="a title", axis="x", **options)).convert("RGB"))  # pyright: ignore


def places(pixels: np.ndarray, colour: tuple[int, int, int], bins: int = 20) -> np.ndarray:
    """(n, 2) rows and columns of a colour within the panels, away from legend and words."""
    rows, columns = np.nonzero((pixels == colour).all(-1))
    inside = (columns > LEFT) & (columns < LEFT + WIDTH)
    return np.stack([rows[inside], columns[inside]], 1)


def test_a_series_further_right_is_drawn_further_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(1, 0.1, 2000), rng.normal(3, 0.1, 2000)
    pixels = drawn({"all": {"low": low, "high": high}}, tmp_path / "deep" / "a.png")
    below = len(pixels) - HEIGHT  # the lower rows hold the panel
    found = [places(pixels, colour) for colour in COLOURS[:2]]
    found = [at[at[:, 0] > below] for at in found]
    # where most of each curve stands
    assert np.median(found[0][:, 1]) < LEFT + WIDTH / 2 < np.median(found[1][:, 1])
    assert len(found[0]) > 200


def test_panels_share_an_axis_or_have_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    panels = {"near": {"a": rng.uniform(0, 1, 500)}, "far": {"a": rng.uniform(50, 100, 500)}}
    shared, own = (drawn(panels, tmp_path / f"{flag}.png", shared=flag) for flag in (True, False))
    assert shared.shape == own.shape
    top = slice(0, len(shared) // 2)
    # on the shared axis the values of the first panel stand at its left edge
    assert np.ptp(places(shared[top], COLOURS[0])[:, 1]) > 0
    widths = [np.percentile(places(p[len(p) // 4 : len(p) // 2], COLOURS[0])[:, 1], 50) for p in (shared, own)]
    assert widths[0] < widths[1]


def test_the_file_says_what_it_is_and_one_value_is_drawn_too(tmp_path: Path) -> None:
    path = plot({"p": {"one": np.ones(3), "zero": np.zeros(1)}}, tmp_path / "a.png", title="of a net", axis="x")
    assert Image.open(path).text == {"orthogan": "histograms", "subject": "of a net"}  # pyright: ignore
    constant = drawn({"p": {"one": np.full(5, 2.5)}}, tmp_path / "b.png")
    assert len(places(constant, COLOURS[0])) > 100


def test_many_long_names_take_more_lines(tmp_path: Path) -> None:
    few = {f"a name that is rather long, {i}": np.arange(4.0) for i in range(2)}
    many = {f"a name that is rather long, {i}": np.arange(4.0) for i in range(8)}
    assert len(drawn({"p": many}, tmp_path / "a.png")) > len(drawn({"p": few}, tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("panels", "name", "message"),
    [
        ({}, "a.png", "nothing to draw"),
        ({"p": {}}, "a.png", "nothing to draw"),
        ({"p": {"a": np.zeros(0)}}, "a.png", "p, a: no values"),
        ({"p": {"a": np.array([1.0, np.nan])}}, "a.png", "NaN"),
        ({"p": {str(i): np.zeros(1) for i in range(9)}}, "a.png", "at most 8"),
        ({"p": {"a": np.zeros(1)}}, "a.pdf", r"\.png"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    panels: dict[str, dict[str, np.ndarray]], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        plot(panels, tmp_path / name, title="", axis="x")
