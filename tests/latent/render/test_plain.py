"""Traversals without captions: the images alone, sharp or smooth, at the size that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render import check_suffix, render
from orthogan.latent.render.animation import swing, timeline
from orthogan.latent.render.plain import FPS, tiles
from orthogan.latent.traverse import Traversal, traverse
from tests.fixtures.disc import Disc
from tests.fixtures.runs import ROOT


@pytest.fixture(scope="module")
def walk() -> Traversal:
    net = Disc(channels=3)
    return traverse(net, latent_axes(net), dims=[0, 2, 3], steps=5, seed=3)


def test_a_picture_has_every_image_in_its_place_and_nothing_else(walk: Traversal, tmp_path: Path) -> None:
    picture = Image.open(render(walk, tmp_path / "t.png", plain=True, side=5 * 32))
    meant = np.concatenate([np.concatenate(list(row), axis=2) for row in walk.frames], axis=1)
    assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), meant)
    assert picture.text["seed"] == "3"
    assert Image.open(render(walk, tmp_path / "large.png", plain=True)).size == (5 * 64, 3 * 64)


def test_a_loop_swings_with_all_directions_at_once(walk: Traversal, tmp_path: Path) -> None:
    loop = Image.open(render(walk, tmp_path / "t.webp", plain=True, side=128))
    order = timeline(swing(5), FPS)
    assert loop.size == (128, 128)
    spent = 0
    for place in range(loop.n_frames):
        loop.seek(place)
        column = order[spent // 40]
        shown = np.asarray(loop.convert("RGB")).transpose(2, 0, 1)[:, ::2, ::2]
        assert np.array_equal(shown, tiles(walk.frames[:, column], 2))
        spent += loop.info["duration"]
    assert spent == 40 * len(order)
    gif = Image.open(render(walk, tmp_path / "t.gif", plain=True, side=100, smooth=True))
    assert gif.size == (100, 100)
    assert json.loads(gif.info["comment"])["seed"] == "3"


def test_tiles_fill_rows_and_leave_the_rest_black() -> None:
    images = np.arange(1, 4, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((3, 1, 2, 2), np.uint8)
    assert tiles(images, 2)[0, ::2, ::2].tolist() == [[1, 2], [3, 0]]


def test_what_does_not_fit_together_is_refused(walk: Traversal, tmp_path: Path) -> None:
    for path, more in (("t.html", {}), ("t.png", {"heatmap": True}), ("t.png", {"sheet": True})):
        with pytest.raises(UserError, match="without captions"):
            check_suffix(path, plain=True, **more)
    with pytest.raises(UserError, match="plain=True"):
        render(walk, tmp_path / "t.png", side=100)
    with pytest.raises(UserError, match="side=0"):
        render(walk, tmp_path / "t.png", plain=True, side=0)


def test_the_command_makes_a_clean_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "pretrained" / "sprites-sngan" / "generator.safetensors")
    common = ["traverse", model, "--dims", "0", "--steps", "3", "--out", str(tmp_path / "a.gif")]
    assert main([*common, "--plain", "--size", "96"]) == 0
    assert Image.open(tmp_path / "a.gif").size == (96, 96)
    assert main([*common, "--size", "96"]) == 2
    assert "add --plain" in capsys.readouterr().err
