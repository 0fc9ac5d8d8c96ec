"""From the bytes of an image file to an array, whatever colour mode the file has."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from orthogan.data.resize import MOST_PIXELS, centre_crop, resize_image, to_array

MOST_LENGTHS = 1000  # longer side of a picture [lengths of the shorter one]
PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "QOI", "TGA")
# Of the pixels: size, bits, compression, meaning, strips, tiles, predictor, colors, alpha, sample format, JPEG tables.
TIFF_TAGS = {*range(256, 260), 262, 266, 273, *range(277, 280), 284, 292, 317, 320, *range(322, 326), 338, 339, 347}
TIFF_TAGS |= {530, 531, 532}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """The bytes are no picture that can be used; the message says why, without the file's name."""


class Decoded(NamedTuple):
    """``array``: uint8 (channels, h, w), a view of (h, w, channels) as Pillow has it where nothing has to be changed.

    ``animated``: the file has more frames than this, its first.
    """

    array: np.ndarray
    animated: bool


def decode(data: bytes, *, resolution: int, channels: int) -> Decoded:
    """Decode an image file, cut out its central square and resize it (``orthogan.data.resize``).

    EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels (palette, grey or RGB)
    are laid on white. CMYK and YCbCr become RGB by Pillow's plain conversion; 16 bits become 8 by v/257 rounded;
    floats are taken to run from 0 to 1. Damaged metadata (EXIF, text, color profiles, further frames) is ignored.
    Raises UnreadableImage for anything that gives no picture: an empty, foreign or truncated file, more than
    ``MOST_PIXELS``, an unknown white level.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        return _decoded(data, resolution, channels)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type on damaged data
        bare = without_metadata(data)
        if bare is not None:
            with suppress(Exception):
                return _decoded(bare, resolution, channels)
        if isinstance(error, UnidentifiedImageError):
            raise UnreadableImage("not an image in a format that orthogan reads") from error
        if isinstance(error, Image.DecompressionBombError):
            raise UnreadableImage(f"too many pixels to be decoded safely ({error})") from error
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error


def _decoded(data: bytes, resolution: int, channels: int) -> Decoded:
    picture = Image.open(io.BytesIO(data), formats=_formats())
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels are more than {MOST_PIXELS >> 20} Mi; scale the picture down")
    if max(width, height) > MOST_LENGTHS * min(width, height):
        raise UnreadableImage(f"{width} x {height} pixels: one side is more than {MOST_LENGTHS} times the other")
    try:
        # Phones store a photograph and its preview as two "frames" of an MPO file: that is no animation.
        animated = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except Exception:  # the next frame is damaged, which this one need not be
        picture, animated = Image.open(io.BytesIO(data), formats=_formats()), True
    picture.load()
    turn = _turn(picture)
    if turn is not None:
        picture = picture.transpose(turn)
    picture = resize_image(_eight_bits(centre_crop(picture)), resolution)
    if channels == 3 and picture.mode == "RGB":  # a tenth of the time of a small file is not to turn it round
        return Decoded(np.asarray(picture).transpose(2, 0, 1), animated)
    return Decoded(to_array(picture, channels), animated)


@cache
def _formats() -> tuple[str, ...]:
    """The formats of ``stores.IMAGE_ENDINGS``: Pillow knows others, of which EPS would start a program."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, by its EXIF orientation; None where that is missing or damaged."""
    try:
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow parses EXIF with no errors of its own: SyntaxError, struct.error, ValueError, ...
        return None


def without_metadata(data: bytes) -> bytes | None:
    """An image file without what is not needed for its pixels, for a second attempt; None for most formats.

    PNG keeps its critical chunks, transparency and intact EXIF; JPEG keeps JFIF, EXIF and Adobe's color transform.
    TIFF keeps the tags of the pixels of its first picture, AVIF all but EXIF.
    """
    if data.startswith(PNG):
        return PNG + b"".join(
            chunk
            for kind, chunk in _png_chunks(data)
            if not kind[0] & 32 or kind == b"tRNS" or (kind == b"eXIf" and _intact(chunk))
        )
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _bare_tiff(data, "<" if data[:1] == b"I" else ">")
    if data[4:8] == b"ftyp":
        # The item that holds EXIF gets another type, so that no reader looks for it.
        return re.sub(rb"(infe[\x02\x03].{3}.{2,4}.{2})Exif", rb"\1skip", data, count=1, flags=re.DOTALL)
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and bytes of every chunk, up to where the file ends or makes no sense."""
    place = len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if not kind.isalpha():
            return
        yield kind, data[place : place + 12 + length]
        place += 12 + length


def _intact(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The segments that matter for the pixels or the orientation; all that follows the first scan is one."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == 0xDA:
            break
        segment = data[place : place + 2 + length]
        exif = marker == 0xE1 and segment[4:10] == b"Exif\0\0"
        if exif or marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield segment
        place += 2 + length
    yield data[place:]


def _bare_tiff(data: bytes, order: str) -> bytes | None:
    """The file with a new first directory at its end, which lists the tags of the pixels only."""
    (start,) = struct.unpack_from(f"{order}I", data, 4) if len(data) >= 8 else (len(data),)
    (count,) = struct.unpack_from(f"{order}H", data, start) if start + 2 <= len(data) else (0,)
    entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [e for e in entries if len(e) == 12 and struct.unpack(f"{order}H", e[:2])[0] in TIFF_TAGS]
    header = data[:4] + struct.pack(f"{order}I", len(data))
    return header + data[8:] + struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Any mode to L or RGB."""
    mode = picture.mode
    if mode in ("L", "RGB") and not picture.has_transparency_data:
        return picture
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_grey_levels(np.asarray(picture), mode))
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        ground = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(ground, colours).convert("L" if mode in ("L", "LA", "La") else "RGB")
    return picture.convert("L" if mode in ("1", "L") else "RGB")


def _grey_levels(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey of more than 8 bits to uint8, rounded."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise UnreadableImage(f"floating-point values from {low:g} to {high:g}; expected 0 to 1")
        return np.round(values * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise UnreadableImage(f"32-bit values from {low:g} to {high:g}; expected 16 bits, 0 to 65535")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
