"""The PNG picture and the GIF/WebP loop: the images in them are the frames, untouched, and labelled."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.drawing.grid import BACKGROUND
from orthogan.drawing.text import Font, fit, signed
from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render import caption, render
from orthogan.latent.render.animation import PERIOD_MS, mosaic, swing
from orthogan.latent.render.picture import ACCENT, render_grid
from orthogan.latent.traverse import Traversal, traverse
from tests.fixtures.disc import Disc
from tests.fixtures.pictures import find, magnified


@pytest.fixture(scope="module")
def walk() -> Traversal:
    net = Disc(channels=3, num_classes=4)
    return traverse(net, latent_axes(net), dims=[0, 2, 4], steps=5, seed=3, control=2, truncation=0.9)


def test_every_frame_is_in_the_picture_exactly_in_rows_and_columns(walk: Traversal) -> None:
    picture = np.asarray(render_grid(walk))
    tops, lefts = set(), set()
    for row in range(5):
        places = [find(picture, magnified(walk.frames[row, column], 3)) for column in (0, 1, 3, 4)]
        assert all(len(hits) == 1 for hits in places), row
        assert len({hits[0][0] for hits in places}) == 1
        tops.add(places[0][0][0])
        lefts.add(tuple(hits[0][1] for hits in places))
    assert len(tops) == 5
    assert len(lefts) == 1
    columns = next(iter(lefts))
    middle = find(picture, magnified(walk.frames[0, 2], 3))  # the base image, once in every row
    assert sorted(top for top, _ in middle) == sorted(tops)
    assert {left for _, left in middle} == {(columns[1] + columns[2]) // 2}
    gaps = np.diff(sorted(tops))
    assert gaps[2] > gaps[0] == gaps[1] == gaps[3]  # the control rows stand apart


def test_the_middle_column_is_framed_and_nothing_else_is(walk: Traversal) -> None:
    picture = np.asarray(render_grid(walk))
    (top, left) = min(find(picture, magnified(walk.frames[0, 2], 3)))
    assert (picture[top - 1, left : left + 96] == ACCENT).all()
    assert (picture[top : top + 96, left - 1] == ACCENT).all()
    assert (picture[top : top + 96, left + 96] == ACCENT).all()
    (top, left) = find(picture, magnified(walk.frames[0, 0], 3))[0]
    assert not (picture[top - 1, left : left + 96] == ACCENT).all(axis=-1).any()


def test_scale_and_many_steps_leave_room_for_the_column_labels(walk: Traversal) -> None:
    tiny = replace(walk, frames=walk.frames[..., :4, :4])
    picture = render_grid(tiny, scale=1)
    font = Font(12)
    assert picture.width > 5 * max(font.width(label) for label in caption.column_labels(walk))
    ground = np.asarray(picture)
    assert (ground[:3] == BACKGROUND).all()
    assert (ground[:, -3:] == BACKGROUND).all()


def test_a_row_without_controls_has_no_gap(walk: Traversal) -> None:
    plain = replace(
        walk,
        frames=walk.frames[:3],
        names=walk.names[:3],
        notes=walk.notes[:3],
        scores=walk.scores[:3],
        is_control=walk.is_control[:3],
    )
    only_control = replace(plain, is_control=np.ones(3, bool))
    assert np.array_equal(np.asarray(render_grid(plain)), np.asarray(render_grid(only_control)))
    assert render_grid(plain).height < render_grid(walk).height - 2 * 96


def test_png_tells_its_provenance(walk: Traversal, tmp_path: Path) -> None:
    with Image.open(render(walk, tmp_path / "t.PNG")) as picture:
        text = picture.text
    assert text == walk.metadata
    assert {"seed", "model_hash", "method", "range", "truncation", "base", "control"} <= set(text)


def test_captions(walk: Traversal) -> None:
    assert caption.column_labels(walk) == ["-3", "-1.5", "0", "+1.5", "+3"]
    under = caption.subtitle(walk)
    for part in ("From seed 3", "offsets in latent std", "class 3", "truncation 0.9", walk.metadata["model_hash"][:12]):
        assert part in under
    assert "centered" not in under
    other = replace(walk, metadata={**walk.metadata, "base": "zero", "centred": "true", "layer": "fc"})
    assert "From the average latent" in caption.subtitle(other)
    assert "centered" in caption.subtitle(other)
    assert "method: latent axes, layer fc" in caption.subtitle(other)
    moved = replace(walk, metadata={**walk.metadata, "space": "w", "layers": "0-3", "base": "zero", "walk": "sphere"})
    assert "method: latent axes, space w, moving layers 0-3" in caption.subtitle(moved)
    assert "From the mean of w" in caption.subtitle(moved)
    assert "walk on the sphere" in caption.subtitle(moved)
    assert "sphere" not in under
    scored = replace(walk, scores=[{"sigma": 1.23456, "change": 2.0}] * 5)
    assert caption.score_lines(scored, 0) == caption.row_lines(scored, 0) == ["sigma 1.23", "change 2.0"]
    told = replace(scored, notes=["hair +0.8, skin -0.1", *scored.notes[1:]])  # a caption takes the place of the scores
    assert caption.row_lines(told, 0) == ["hair +0.8", "skin -0.1", "change 2.0"]
    assert caption.sheet_text(told.notes[0], told.scores[0]) == "hair +0.8, skin -0.1, change 2.0"
    assert caption.sheet_text("", told.scores[0]) == "sigma 1.23, change 2.0"


def test_text_helpers() -> None:
    font = Font(12)
    assert fit("short", font, 500) == "short"
    cut = fit("a rather long\nname " * 5, font, 80)
    assert cut.endswith("…")
    assert font.width(cut) <= 80
    assert fit("word", font, 0) == "…"
    assert [signed(v) for v in (-0.0, 0.1 + 0.2, -4.5, 1e-20)] == ["0", "+0.3", "-4.5", "+1e-20"]


@pytest.mark.parametrize("steps", [3, 5, 11, 41])
def test_the_loop_eases_follows_a_sine_and_closes(steps: int) -> None:
    order = swing(steps)
    columns = [column for column, _ in order]
    half = steps // 2
    assert columns[0] == half
    assert all(abs(a - b) == 1 for a, b in zip(columns, columns[1:] + columns[:1], strict=True))
    assert Counter(columns) == Counter([*range(1, steps - 1)] * 2 + [0, steps - 1])
    times = [duration for _, duration in order]
    assert all(duration % 10 == 0 and duration >= 20 for duration in times)
    assert sum(times) == pytest.approx(PERIOD_MS, rel=0.1)
    # Count, on a fine clock, how long the sine is nearest to each column.
    phase = (np.arange(200_000) + 0.5) / 200_000
    shown = np.bincount(np.rint(half + half * np.sin(2 * np.pi * phase)).astype(int), minlength=steps)
    for column in range(steps):
        total = sum(duration for c, duration in order if c == column)
        assert total == pytest.approx(shown[column] / 200_000 * PERIOD_MS, abs=10.1)


def test_webp_is_the_mosaic_without_loss(walk: Traversal, tmp_path: Path) -> None:
    order = swing(5)
    with Image.open(render(walk, tmp_path / "t.webp")) as loop:
        assert loop.n_frames == len(order)
        assert loop.info["loop"] == 0
        assert json.loads(loop.getexif()[0x010E]) == walk.metadata
        for index, (column, _) in enumerate(order):
            loop.seek(index)
            assert np.array_equal(np.asarray(loop.convert("RGB")), np.asarray(mosaic(walk, column)))


def test_mosaic_holds_every_row_at_its_column(walk: Traversal) -> None:
    picture = np.asarray(mosaic(walk, 4))
    places = [find(picture, magnified(walk.frames[row, 4], 4)) for row in range(5)]
    assert all(len(hits) == 1 for hits in places)
    assert [hits[0] for hits in places] == sorted(hits[0] for hits in places)
    assert not np.array_equal(picture[:40], np.asarray(mosaic(walk, 0))[:40])  # the offset is burnt in


def test_gif_loops_with_the_same_times_and_nearly_the_same_colours(walk: Traversal, tmp_path: Path) -> None:
    order = swing(5)
    with Image.open(render(walk, tmp_path / "t.gif")) as loop:
        assert loop.n_frames == len(order)
        assert loop.info["loop"] == 0
        assert json.loads(loop.info["comment"]) == walk.metadata
        for index, (column, duration) in enumerate(order):
            loop.seek(index)
            assert loop.info["duration"] == duration
            seen, meant = (np.asarray(p.convert("RGB"), np.float64) for p in (loop, mosaic(walk, column)))
            assert np.abs(seen - meant).mean() < 6


def test_nothing_flickers_where_a_grey_gif_stands_still(tmp_path: Path) -> None:
    net = Disc()
    still = traverse(net, latent_axes(net), dims=[5], steps=3)  # a coordinate that changes nothing
    with Image.open(render(still, tmp_path / "t.gif")) as loop:
        frames = []
        for index in range(loop.n_frames):
            loop.seek(index)
            frames.append(np.asarray(loop.convert("RGB"))[70:])
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_other_suffixes_list_the_known_ones(walk: Traversal, tmp_path: Path) -> None:
    for name in ("t.jpg", "t"):
        with pytest.raises(UserError, match=r"\.png, \.gif, \.webp, \.mp4, \.html"):
            render(walk, tmp_path / name)
    for name in ("t.gif", "t.webp", "t.mp4"):
        with pytest.raises(UserError, match=rf"{name}: heat maps are only available for \.png and \.html"):
            render(walk, tmp_path / name, heatmap=True)
    assert not list(tmp_path.iterdir())
