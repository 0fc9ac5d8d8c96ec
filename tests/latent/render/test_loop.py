"""Clean loops: the frames at their size and in their order, in all three formats."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from orthogan.errors import UserError
from orthogan.latent.render import animation
from orthogan.latent.render.loop import LARGEST_SIDE, encode_loop


def frames(channels: int = 3, side: int = 8) -> list[np.ndarray]:
    shades = np.random.default_rng(0).integers(0, 256, (3, channels, side, side))
    return list(shades.astype(np.uint8))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_frame_is_a_sharp_copy_in_its_order(suffix: str, channels: int) -> None:
    images, order = frames(channels), [0, 1, 2, 1]
    loop = Image.open(io.BytesIO(encode_loop(images, order, suffix, side=64, about={"seed": "7"})))
    assert (loop.n_frames, loop.size, loop.info["loop"]) == (4, (64, 64), 0)
    for place, index in enumerate(order):
        loop.seek(place)
        shown = np.asarray(loop.convert("RGB")).transpose(2, 0, 1)
        meant = np.kron(np.broadcast_to(images[index], (3, 8, 8)), np.ones((1, 8, 8), np.uint8))
        error = np.abs(shown.astype(int) - meant)
        assert error.max() == 0 if suffix == ".webp" else error.mean() < 4  # a GIF has 256 colors
        assert loop.info["duration"] == 40
    if suffix == ".gif":
        assert json.loads(loop.info["comment"]) == {"seed": "7"}


def test_smooth_frames_are_resampled() -> None:
    step = np.zeros((1, 8, 8), np.uint8)
    step[:, :, 4:] = 200
    sharp, smooth = (
        np.asarray(Image.open(io.BytesIO(encode_loop([step], [0], ".webp", side=64, smooth=smooth))).convert("L"))
        for smooth in (False, True)
    )
    assert set(np.unique(sharp)) == {0, 200}
    assert len(np.unique(smooth)) > 10


def test_a_video_has_even_sides_and_the_length_that_was_asked_for() -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    made = encode_loop(frames(side=7), [0, 1, 2] * 10, ".mp4", side=63, fps=25, about={"seed": "7"})
    with av.open(io.BytesIO(made)) as box:
        stream = box.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in box.decode(stream)]
        assert (stream.width, stream.height, stream.average_rate) == (64, 64, 25)
        assert json.loads(box.metadata["comment"]) == {"seed": "7"}
    assert len(pictures) == 30


def test_a_large_gif_takes_its_colors_from_some_of_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.full((3, 4, 4), shade, np.uint8) for shade in (10, 200)]
    monkeypatch.setattr(animation, "PALETTE_PIXELS", 500)
    loop = Image.open(io.BytesIO(encode_loop(images, [0, 1], ".gif", side=64)))
    for place, shade in enumerate((10, 200)):
        loop.seek(place)
        assert np.abs(np.asarray(loop.convert("RGB")).astype(int) - shade).max() <= 2


@pytest.mark.parametrize(
    ("suffix", "side", "words"),
    [(".avi", 64, r"\.gif, \.webp, \.mp4"), (".gif", 0, "pixels wide"), (".gif", LARGEST_SIDE + 1, "pixels wide")],
)
def test_what_cannot_be_made_is_refused(suffix: str, side: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        encode_loop(frames(), [0], suffix, side=side)


def test_a_loop_that_does_not_fit_in_memory_is_refused() -> None:
    with pytest.raises(UserError, match="smaller size"):
        encode_loop([np.zeros((1, 4, 4), np.uint8)] * 200, [0], ".gif", side=2048)
