"""The MP4, decoded again: the frames of the loop in its time, in colours and metadata that survive."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render import animation as render_video
from orthogan.latent.render import check_suffix, render
from orthogan.latent.render.animation import FPS, PERIOD_MS, mosaic, save_video, swing, timeline
from orthogan.latent.traverse import Traversal, traverse
from tests.fixtures.disc import Disc

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="no PyAV here (pip install av)")


@pytest.fixture(scope="module")
def walk() -> Traversal:
    net = Disc(channels=3)
    return traverse(net, latent_axes(net), dims=[0, 3, 4], steps=5, seed=3)


@pytest.mark.parametrize("steps", [3, 5, 11, 41])
def test_the_timeline_is_the_swing_of_the_gif_at_a_fixed_rate(steps: int) -> None:
    order = swing(steps)
    columns = timeline(order)
    assert len(columns) / FPS * 1000 == pytest.approx(sum(ms for _, ms in order), abs=10)
    runs = [columns[0]]
    for column in columns:
        if column != runs[-1]:
            runs.append(column)
    assert runs == [column for column, _ in order]  # none left out, same way round, no jump
    assert abs(columns[0] - columns[-1]) == 1
    spent = np.bincount(columns, minlength=steps) * 1000 / FPS
    meant = np.bincount([c for c, _ in order], weights=[ms for _, ms in order], minlength=steps)
    assert np.abs(spent - meant).max() <= 2 * 1000 / FPS
    assert spent[0] > spent[1] / 2  # the ends, met once a period, last: the motion eases there


@needs_av
def test_the_video_shows_the_mosaic_in_its_order(walk: Traversal, tmp_path: Path) -> None:
    import av

    columns = timeline(swing(5))
    with av.open(str(render(walk, tmp_path / "t.mp4"))) as box:
        stream = box.streams.video[0]
        context: Any = stream.codec_context
        assert (context.name, context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", FPS)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.width % 2 == context.height % 2 == 0
        assert json.loads(box.metadata["comment"]) == walk.metadata
        assert box.metadata["title"] == "What each direction changes"
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(PERIOD_MS / 1000, rel=0.01)
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in box.decode(stream)]
    assert len(frames) == len(columns)
    for frame, column in zip(frames, columns, strict=True):
        meant = np.asarray(mosaic(walk, column)).astype(int)
        error = np.abs(frame[: meant.shape[0], : meant.shape[1]] - meant)
        assert error.mean() < 2.5  # versions of the encoder differ
        # Magnified pixels stay crisp: brightness, which has full resolution, is nearly that of the picture.
        assert np.quantile(np.abs((frame[: len(meant), : meant.shape[1]] - meant).mean(axis=2)), 0.999) < 12


@needs_av
def test_the_same_traversal_gives_the_same_bytes_and_an_odd_size_is_padded(walk: Traversal, tmp_path: Path) -> None:
    import av

    odd = replace(walk, frames=walk.frames[..., :31, :29])  # four times as large in the picture, beside text
    assert 1 in {side % 2 for picture in (mosaic(walk, 0), mosaic(odd, 0)) for side in picture.size}
    for some in (walk, odd):
        one, two = save_video(some, tmp_path / "1.mp4"), save_video(some, tmp_path / "2.mp4")
        assert one.read_bytes() == two.read_bytes()
        with av.open(str(one)) as box:
            context = box.streams.video[0].codec_context
            assert (context.width, context.height) == tuple(side + side % 2 for side in mosaic(some, 0).size)


def test_without_pyav_the_message_says_what_to_install(
    walk: Traversal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_video.importlib.util, "find_spec", lambda name: None)
    for call in (lambda: render(walk, tmp_path / "t.mp4"), lambda: check_suffix("t.mp4")):
        with pytest.raises(UserError, match=r"pip install -e '\.\[video\]'"):
            call()
    assert not list(tmp_path.iterdir())
