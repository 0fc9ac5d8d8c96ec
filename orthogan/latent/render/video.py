"""The traversal as an MP4: the frames and the eased timing of the GIF, in H.264 that every player knows."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from orthogan.drawing.grid import BACKGROUND
from orthogan.errors import UserError, install
from orthogan.io.write import write_bytes
from orthogan.latent.render.animation import mosaic, swing
from orthogan.latent.render.caption import title
from orthogan.latent.traverse import Traversal

FPS = 50  # a frame is two ticks of the clock of ``swing``
CRF = 15  # of 0 … 51: differences that nobody sees, also where single pixels are magnified
BT709 = 1  # in the tables of ITU-T H.273: what players take for granted
TV_RANGE = 1
MARKED = {"colorspace": BT709, "color_primaries": BT709, "color_trc": BT709, "color_range": TV_RANGE}


def need_av() -> None:
    """Raises ``UserError`` where PyAV is not installed; it comes with the extra ``video``."""
    if importlib.util.find_spec("av") is None:
        raise UserError(f"an .mp4 needs PyAV: {install('video')}; .gif and .webp need nothing more")


def timeline(order: list[tuple[int, int]], fps: int = FPS) -> list[int]:
    """The column shown in each frame of one period, of (column, milliseconds) as ``swing`` gives them."""
    columns, times = zip(*order, strict=True)
    ends = np.cumsum(times)
    middles = (np.arange(round(int(ends[-1]) * fps / 1000)) + 0.5) * 1000 / fps
    return [columns[index] for index in np.searchsorted(ends, middles, side="right")]


def save_video(traversal: Traversal, path: str | os.PathLike[str]) -> Path:
    """Write one period of the loop as H.264 in yuv420p, 50 frames a second; played again and again it has no seam.

    A side of odd length gets one more line of the ground. The metadata is the comment of the file, as JSON.
    The same traversal gives the same bytes with the same libraries. Raises ``UserError`` without PyAV.
    """
    need_av()
    import av  # only where it is asked for: an extra
    from av.video.reformatter import ColorRange, Colorspace

    columns = timeline(swing(len(traversal.offsets)))
    shown = {column: _even(mosaic(traversal, column)) for column in set(columns)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "loop.mp4"
        with av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as box:
            box.metadata["title"] = title(traversal)
            box.metadata["comment"] = json.dumps(traversal.metadata, sort_keys=True)
            # One thread, so that the bytes do not depend on the machine.
            stream = box.add_stream("libx264", rate=FPS, options={"crf": str(CRF), "threads": "1"})
            stream.width, stream.height = shown[columns[0]].size
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, FPS)
            for name, value in MARKED.items():
                setattr(stream.codec_context, name, value)
            frames = {
                column: av.VideoFrame.from_image(picture).reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                for column, picture in shown.items()
            }
            for index, column in enumerate(columns):
                frame = frames[column]
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                box.mux(stream.encode(frame))
            box.mux(stream.encode(None))
        return write_bytes(path, file.read_bytes())


def _even(picture: Image.Image) -> Image.Image:
    """As yuv420p needs it: colours are kept for squares of two by two pixels."""
    width, height = (size + size % 2 for size in picture.size)
    ground = Image.new("RGB", (width, height), BACKGROUND)
    ground.paste(picture)
    return ground
