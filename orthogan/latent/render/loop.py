"""Clean loops, without captions, at any size: GIF, WebP or MP4 from a sequence of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from orthogan.drawing.grid import enlarge
from orthogan.errors import UserError
from orthogan.latent.render.animation import encode_gif, encode_mp4, encode_webp

LOOPS = (".gif", ".webp", ".mp4")
LARGEST_SIDE = 2048  # pixels
MOST_PIXELS = 400_000_000  # of all different frames together, which are in memory at once


def encode_loop(
    images: Sequence[np.ndarray],
    order: Sequence[int],
    suffix: str,
    *,
    side: int,
    smooth: bool = False,
    fps: int = 25,
    about: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of an endless loop that shows ``images[i]`` for each i of ``order``.

    Args:
        images: the different frames, uint8 (c, h, w) with c of 1 or 3, all of one size.
        order: which of them is shown at each tick.
        suffix: ".gif" (256 colors), ".webp" or ".mp4" (needs PyAV).
        side: width in pixels; one more for an .mp4 if it is odd, as yuv420p needs.
        smooth: resample with a Lanczos filter; otherwise pixels stay sharp squares.
        fps: ticks per second.
        about: written into the file as JSON.

    Raises:
        UserError: another suffix, a size or length that would not fit in memory, or a missing encoder.

    Example:
        >>> disc = np.zeros((1, 8, 8), np.uint8)
        >>> encode_loop([disc, disc + 255], [0, 1], ".gif", side=64)[:6]
        b'GIF89a'
    """
    if suffix not in LOOPS:
        raise UserError(f"{suffix}: a loop is written as {', '.join(LOOPS)}")
    if not 1 <= side <= LARGEST_SIDE:
        raise UserError(f"a loop is 1 to {LARGEST_SIDE} pixels wide, not {side}")
    if len(images) * side**2 > MOST_PIXELS:
        raise UserError(f"{len(images)} frames of {side} pixels do not fit in memory; choose a smaller size")
    if suffix == ".mp4":
        side += side % 2
    frames = {index: enlarge(image, side, smooth=smooth) for index, image in enumerate(images)}
    told = json.dumps(dict(about or {}), sort_keys=True)
    if suffix == ".mp4":
        even = {index: _even_height(picture) for index, picture in frames.items()}
        return encode_mp4(even, order, told, fps=fps, title="orthogan loop")
    timed = [(index, round(1000 / fps)) for index in order]
    if suffix == ".webp":
        return encode_webp(frames, timed, told, lossless=not smooth)
    return encode_gif(frames, timed, told, dither=smooth)


def _even_height(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width, picture.height + picture.height % 2))
