"""The image grid: every pixel where it belongs, floats by one rule, metadata in the PNG, whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orthogan.drawing.grid import BACKGROUND, class_layout, default_scale, image_grid, save_png, tile_pictures
from orthogan.errors import UserError


def noise(n: int, c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, c, h, w), dtype=np.uint8)


@settings(deadline=None)
@given(
    n=st.integers(1, 9),
    c=st.sampled_from([1, 3]),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    columns=st.integers(1, 10),
    scale=st.integers(1, 3),
    pad=st.integers(0, 3),
)
def test_each_cell_is_its_image_magnified(n: int, c: int, h: int, w: int, columns: int, scale: int, pad: int) -> None:
    images = noise(n, c, h, w)
    picture = np.asarray(image_grid(images, columns=columns, scale=scale, pad=pad))
    across = min(n, columns)
    down = -(-n // across)
    assert picture.shape == (down * (h * scale + pad) + pad, across * (w * scale + pad) + pad, 3)
    expected = np.full_like(picture, BACKGROUND[0])
    for i in range(n):
        top, left = pad + i // across * (h * scale + pad), pad + i % across * (w * scale + pad)
        block = np.kron(images[i], np.ones((1, scale, scale), np.uint8)).transpose(1, 2, 0)
        expected[top : top + h * scale, left : left + w * scale] = block
    assert np.array_equal(picture, expected)


def test_floats_in_minus_one_to_one_become_the_same_picture_as_their_uint8() -> None:
    floats = torch.linspace(-1.2, 1.2, 2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
    levels = np.rint(np.clip(floats.numpy().astype(np.float64), -1, 1) * 127.5 + 127.5).astype(np.uint8)
    assert np.array_equal(np.asarray(image_grid(floats)), np.asarray(image_grid(levels)))


def test_default_is_nearest_to_a_square_and_readable() -> None:
    assert image_grid(noise(64, 1, 32, 32)).size == (8 * 66 + 2, 8 * 66 + 2)
    assert default_scale(32, 32) == 2
    assert default_scale(28, 28) == 3
    assert default_scale(64, 20) == 1
    assert default_scale(256, 256) == 1


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4), np.uint8), np.zeros((2, 17, 4, 4), np.uint8), np.zeros((0, 3, 4, 4), np.uint8)],
)
def test_wrong_shapes_are_named(images: np.ndarray) -> None:
    with pytest.raises(UserError, match="shape"):
        image_grid(images)


def test_bad_values_and_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="NaN"):
        image_grid(torch.full((1, 1, 4, 4), float("nan")))
    with pytest.raises(UserError, match="int64"):
        image_grid(np.zeros((1, 1, 4, 4), np.int64))
    with pytest.raises(UserError, match="scale=0"):
        image_grid(noise(2, 1, 4, 4), scale=0)
    with pytest.raises(UserError, match="1 label for 2 images"):
        image_grid(noise(2, 1, 4, 4), labels=["a"])
    with pytest.raises(UserError, match="layout"):
        image_grid(noise(2, 1, 4, 4), layout=np.array([[0, 2]]))
    with pytest.raises(UserError, match="2 row labels for 1 row"):
        image_grid(noise(2, 1, 4, 4), layout=np.array([[0, 1]]), row_labels=["a", "b"])


def test_labels_are_drawn_below_and_do_not_touch_the_images() -> None:
    images = noise(2, 3, 32, 32)
    bare = np.asarray(image_grid(images, columns=2, scale=2))
    labelled = np.asarray(image_grid(images, columns=2, scale=2, labels=["ship", "a very long name indeed"]))
    assert labelled.shape[0] > bare.shape[0]
    assert np.array_equal(labelled[:66], bare[:66])
    for left in (2, 68):  # some ink under each image
        assert (labelled[66:, left : left + 64] < 128).any()
    assert (labelled[66:, 66:68] == BACKGROUND[0]).all()  # the long one was cut before the gutter


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.one_of(st.none(), st.integers(1, 7)))
def test_class_layout_holds_everything_once_and_never_mixes_a_row(labels: list[int], per_row: int | None) -> None:
    layout = class_layout(labels, per_row=per_row)
    assert sorted(layout[layout >= 0].tolist()) == list(range(len(labels)))
    firsts = []
    for row in layout:
        members = row[row >= 0].tolist()
        assert len({labels[i] for i in members}) == 1
        assert members == sorted(members)
        assert (row[len(members) :] == -1).all()
        firsts.append((labels[members[0]], members[0]))
    assert firsts == sorted(firsts)
    assert layout.shape[1] == (per_row or max(labels.count(c) for c in labels))


def test_layout_with_an_empty_cell_and_row_labels() -> None:
    images = noise(3, 1, 8, 8)
    picture = np.asarray(image_grid(images, layout=class_layout([1, 0, 1]), row_labels=["zero", "one"], scale=1, pad=1))
    right = picture[:, -(2 * 9 + 1) :]
    assert np.array_equal(right[1:9, 1:9, 0], images[1, 0])
    assert (right[1:9, 10:18] == BACKGROUND[0]).all()
    assert np.array_equal(right[10:18, 10:18, 0], images[2, 0])
    assert (picture[:, : -(2 * 9 + 1)] < 128).any()


def test_png_carries_its_metadata_and_pixels(tmp_path: Path) -> None:
    picture = image_grid(noise(4, 3, 8, 8))
    about = {"model_hash": "ab12", "note": "σ and 中", "empty": ""}
    path = save_png(picture, tmp_path / "new" / "grid.png", about)
    with Image.open(path) as back:
        back.load()
        assert back.format == "PNG"
        assert dict(back.text) == about
        assert np.array_equal(np.asarray(back), np.asarray(picture))
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_png(image_grid(noise(1, 1, 4, 4)), tmp_path / "grid.png")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orthogan.io.write.os.fsync", full)
    with pytest.raises(UserError, match=r"grid\.png.*No space left"):
        save_png(image_grid(noise(1, 1, 4, 4, seed=1)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        save_png(image_grid(noise(1, 1, 4, 4)), tmp_path / "file" / "grid.png")


def test_names_of_any_bytes_are_written_into_pictures(tmp_path: Path) -> None:
    path = save_png(Image.new("L", (2, 2)), tmp_path / "x.png", {"source": os.fsdecode(b"caf\xe9 \xe5\x86\x99")})
    with Image.open(path) as picture:
        assert picture.info["source"] == r"caf\udce9 写"


def test_a_contact_sheet_shows_every_picture_and_makes_large_ones_smaller() -> None:
    colors = ["red", "lime", "blue", "cyan", "yellow"]
    sizes = [(30, 60), (600, 300), (1, 1), (90, 90), (90, 90)]
    pictures = [
        (f"a rather long caption of {c}" * 9, Image.new("RGB", s, c)) for c, s in zip(colors, sizes, strict=True)
    ]
    sheet = tile_pictures(pictures, most=100)
    counts = {color: count for count, color in sheet.getcolors(2**24) or ()}
    for (_, picture), area in zip(pictures, [30 * 60, 100 * 50, 1, 8100, 8100], strict=True):
        assert counts[picture.getpixel((0, 0))] == area
