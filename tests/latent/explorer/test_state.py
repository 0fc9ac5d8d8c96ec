"""What a browser or a link says is checked; loops of views have no seam; kept changes are sums of directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.explorer.state import LARGEST_SEED, Sliders, View, control_of, motion, view_of


def some(dim: int = 6, k: int = 3, **more: Any) -> Sliders:
    rows = np.random.default_rng(1).normal(size=(k, dim))
    found = Directions(rows, method="made up", scores={"change": np.arange(k) + 1.0}, **more)
    return Sliders(found, control_of(found), ["."] * (k + 1))


def test_a_view_is_read_as_the_page_writes_it() -> None:
    told = {"seed": 3.0, "label": 2, "truncation": 0.5, "offsets": {"4": 1, "0": -2.5, "1": 0}, "other": 9, "mix": 0.25}
    assert view_of(told) == View(3, 2, 0.5, ((0, -2.5), (4, 1.0)), 9, 0.25)
    assert view_of({"seed": LARGEST_SEED}) == View(LARGEST_SEED)
    assert view_of({"seed": 1, "mix": 0.5}) == View(1)  # nothing to blend with


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": None},
        {"seed": "7"},
        {"seed": True},
        {"seed": 1.5},
        {"seed": -5},
        {"seed": float("nan")},
        {"seed": float("inf")},
        {"seed": 1e300},
        {"seed": 2**53},
        {"label": -1},
        {"label": 0.5},
        {"label": "1"},
        {"truncation": 1.1},
        {"truncation": float("nan")},
        {"truncation": None},
        {"offsets": [1, 2]},
        {"offsets": {"x": 1}},
        {"offsets": {"-1": 1}},
        {"offsets": {"9" * 40: 1}},
        {"offsets": {"0": 101}},
        {"offsets": {"0": float("nan")}},
        {"offsets": {"0": "1"}},
        {"offsets": {str(row): 1 for row in range(10_001)}},
        {"other": -1, "mix": 0.5},
        {"other": 3, "mix": 1.5},
        {"mix": None},
    ],
    ids=str,
)
def test_what_no_page_says_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        view_of({"seed": 7, **wrong})


def test_a_slider_that_is_moved_back_is_no_longer_moved() -> None:
    view = View().moved(2, 1.0).moved(0, -1.0)
    assert view.offsets == ((0, -1.0), (2, 1.0))
    assert view.moved(2, 0).offsets == ((0, -1.0),)
    assert view.moved(0, 3).offsets == ((0, 3), (2, 1.0))
    assert view.unedited == View()


@pytest.mark.parametrize("kind", ["direction", "edit", "blend"])
def test_loops_start_and_end_alike_and_ease(kind: str) -> None:
    start = View(other=8, offsets=((1, 2.0),))
    views = motion(start, kind, 72, row=0, reach=3)
    assert len(views) == 72
    read = {
        "direction": lambda view: dict(view.offsets).get(0, 0.0),
        "edit": lambda view: dict(view.offsets).get(1, 0.0),
        "blend": lambda view: view.mix,
    }[kind]
    path = np.array([read(view) for view in [*views, views[0]]])
    steps = np.abs(np.diff(path))
    ends = {"direction": (-3, 3), "edit": (0, 2), "blend": (0, 1)}[kind]
    assert (path.min(), path.max()) == pytest.approx(ends, abs=1e-3)
    assert steps.max() < 0.1 * np.ptp(path)
    assert len(set(views)) <= 37  # the way back shows the same pictures
    if kind == "direction":
        assert all(dict(view.offsets)[1] == 2.0 for view in views)


def test_a_loop_needs_something_that_moves() -> None:
    with pytest.raises(UserError, match="move a slider first"):
        motion(View(), "edit", 10)
    with pytest.raises(UserError, match="second picture"):
        motion(View(), "blend", 10)
    with pytest.raises(UserError, match="direction, edit, blend"):
        motion(View(), "spin", 10)


def test_the_random_direction_is_the_last_row_and_as_long_as_the_others_on_average() -> None:
    sliders = some()
    lengths = np.linalg.norm(sliders.found.matrix.astype(np.float64), axis=1)
    assert len(sliders.rows) == 4
    assert np.linalg.norm(sliders.rows[-1]) == pytest.approx(lengths.mean(), rel=1e-6)
    assert sliders.name(3) == "Random direction"
    assert np.array_equal(sliders.rows, some().rows)


def test_names_on_the_page_are_plain_and_sets_are_told_apart() -> None:
    sliders = some(names=["z2.1", "4", "smile"])
    assert [sliders.name(row) for row in range(3)] == ["Layer 2, direction 1", "Direction 4", "smile"]
    assert sliders.key == some().key != some(5).key
    assert len(sliders.key) == 12


def test_new_names_and_notes_go_where_they_belong() -> None:
    found = some(notes=["a", "b", "c"]).renamed({1: " up "}, {2: "n"})
    assert (found.names, found.notes) == (("0", "up", "2"), ("a", "b", "n"))
    with pytest.raises(UserError, match="direction 3"):
        some().renamed({3: "x"}, {})
    with pytest.raises(UserError, match="empty"):
        some().renamed({0: " "}, {})


def test_a_whole_edit_is_one_direction() -> None:
    sliders = some()
    kept = sliders.combined([(0, 1.5), (3, -2.0)], " both ", "so")
    assert np.allclose(kept.matrix[0], 1.5 * sliders.rows[0] - 2 * sliders.rows[3], atol=1e-6)
    assert (kept.names, kept.notes, kept.scores) == (("both",), ("so",), {})
    for offsets, name, words in [
        ([], "x", "move a slider"),
        ([(0, 1.0)], " ", "a name"),
        ([(9, 1.0)], "x", "slider 9"),
    ]:
        with pytest.raises(UserError, match=words):
            sliders.combined(offsets, name, "")
