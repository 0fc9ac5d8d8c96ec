"""Decode image files of any color mode to arrays."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from orthogan.data.resize import MOST_PIXELS, centre_crop, resize_image, to_array
from orthogan.io.read import describe_error

MOST_LENGTHS = 1000  # largest ratio of the longer to the shorter side
PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "QOI", "TGA")
# Of the pixels: size, bits, compression, meaning, strips, tiles, predictor, colors, alpha, sample format, JPEG tables.
TIFF_TAGS = {*range(256, 260), 262, 266, 273, *range(277, 280), 284, 292, 317, 320, *range(322, 326), 338, 339, 347}
TIFF_TAGS |= {530, 531, 532}
BITS, PLANES = 258, 284  # tags of a TIFF file: bits per value, and whether each channel is stored on its own (2)
SCALES = {"L;2": 85, "L;4": 17}  # by which Pillow multiplies gray levels of few bits
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
    """The bytes are not a usable image; the message says why, without the name of the file."""


class Decoded(NamedTuple):
    """A decoded image: ``array`` is uint8 (channels, h, w), if possible a view of Pillow's (h, w, channels).

    ``animated``: the file has more frames; this is the first one.
    """

    array: np.ndarray
    animated: bool


def decode(data: bytes, *, resolution: Any, channels: int, box: tuple[int, int, int] | None = None) -> Decoded:
    """Decode an image file, crop the central square and resize it (``orthogan.data.resize``).

    ``box``: another square to crop, as its left, top and side [pixels of the upright image].

    EXIF orientation is applied. The first frame of an animation is used. Transparent pixels (palette, gray or RGB) are
    composited on white. CMYK and YCbCr are converted to RGB by Pillow; 16-bit values are rounded to 8 bits as v/257,
    except those of TIFF files with separate planes or premultiplied alpha, which lose their lower 8 bits; floats must
    be between 0 and 1.
    Damaged metadata (EXIF, text, color profiles, further frames) is ignored.
    Raises UnreadableImage if no image can be decoded: an empty or truncated file, another format, more than
    ``MOST_PIXELS`` pixels, or an unknown white level.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        return _decoded(data, resolution, channels, box)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type on damaged data
        bare = without_metadata(data)
        if bare is not None:
            with suppress(Exception):
                return _decoded(bare, resolution, channels, box)
        if isinstance(error, UnidentifiedImageError):
            raise UnreadableImage("not an image in a format that orthogan reads") from error
        if isinstance(error, Image.DecompressionBombError):
            raise UnreadableImage(f"too many pixels to decode safely ({error})") from error
        raise UnreadableImage(f"damaged or incomplete ({describe_error(error)})") from error


def _decoded(data: bytes, resolution: Any, channels: int, box: tuple[int, int, int] | None) -> Decoded:
    picture = Image.open(io.BytesIO(data), formats=_formats())
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels exceed the limit of {MOST_PIXELS >> 20} Mi; scale the image down"
        )
    if max(width, height) > MOST_LENGTHS * min(width, height):
        raise UnreadableImage(
            f"{width} x {height} pixels: one side is more than {MOST_LENGTHS} times as long as the other"
        )
    try:
        # Phones store a photograph and its preview as two "frames" of an MPO file: that is no animation.
        animated = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except Exception:  # the next frame is damaged; this one may be intact
        picture, animated = Image.open(io.BytesIO(data), formats=_formats()), True
    deep, raw = _deep_modes(picture), _raw_mode(picture)
    picture.load()
    turn = _turn(picture)
    if deep is not None:
        _round_colours(picture, data, *deep)
    elif picture.format == "PNG":
        picture = _keyed(picture, raw)
    if turn is not None:
        picture = picture.transpose(turn)
    cropped = centre_crop(picture if box is None else _crop(picture, *box), resolution)
    alpha = channels in (2, 4)
    picture = resize_image(_eight_bits(cropped, alpha=alpha), resolution)
    if channels == 3 and picture.mode == "RGB":  # skipping the conversion saves a tenth of the time of a small file
        return Decoded(np.asarray(picture).transpose(2, 0, 1), animated)
    return Decoded(to_array(picture, channels), animated)


def _raw_mode(picture: Image.Image) -> str:
    """Return how the pixels of an image are stored, such as "L;4"; empty if that is not known. Call it before load."""
    tiles = getattr(picture, "tile", [])
    raw = tiles[0][3] if tiles else ""
    return str(raw if isinstance(raw, str) else raw[0])


def _keyed(picture: Image.Image, raw: str) -> Image.Image:
    """Return a gray PNG with the transparent gray level that it names, which Pillow leaves as it is in the file."""
    key = picture.info.get("transparency")
    if not isinstance(key, int):
        return picture
    if raw in SCALES:
        picture.info["transparency"] = key * SCALES[raw]
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    opaque = np.where(values == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(_grey_levels(values, picture.mode)), Image.fromarray(opaque)])


def _deep_modes(picture: Image.Image) -> tuple[str, str] | None:
    """Return the raw modes of the upper and lower bytes of an image of 16-bit colors, of which Pillow reads the upper.

    Gray with alpha has one mode for both, because its four bytes per pixel fit into the four channels of RGBA.
    """
    tiles = getattr(picture, "tile", [])
    if not tiles:
        return None
    codec, raw = tiles[0][0], _raw_mode(picture)
    tags = getattr(picture, "tag_v2", {})
    if tags.get(PLANES) == 2 and len(picture.getbands()) > 1:
        if codec == "raw" and tags.get(BITS, (8,))[0] == 16:  # Pillow would read each byte as a pixel
            raise UnreadableImage(
                "a 16-bit TIFF with separate planes and no compression; save it with interleaved channels"
            )
        return None
    if raw == "LA;16B":
        return "RGBA", "RGBA"
    name, _, order = raw.partition(";16")
    if name not in ("RGB", "RGBA", "RGBX", "CMYK") or order not in ("B", "L", "N"):
        return None
    if order == "N":
        order = sys.byteorder[0].upper()
    return raw, f"{name};16{'L' if order == 'B' else 'B'}"


def _round_colours(picture: Image.Image, data: bytes, upper: str, lower: str) -> None:
    """Replace the upper bytes in ``picture`` by the 16-bit values rounded to 8 bits.

    The color that a PNG declares transparent, of which Pillow compares the wrong bytes, becomes alpha.
    """
    second = Image.open(io.BytesIO(data), formats=_formats())
    tiles: Any = second.tile  # tuples; since Pillow 11 of a class with names, which Pillow 13 uses
    lower_tiles: Any = []
    for tile in tiles:
        *place, raw = tile
        arguments = lower if isinstance(raw, str) else (lower, *raw[1:])
        named = hasattr(tile, "_replace")
        lower_tiles.append(tile._replace(args=arguments) if named else (*place, arguments))
    second.tile = lower_tiles
    second.load()
    low = np.asarray(second)
    if upper == lower:
        high, low = low[..., [0, 0, 0, 2]], low[..., [1, 1, 1, 3]]
    else:
        high = np.asarray(picture)
    ahead = low.astype(np.int16) - high  # 256 high + low = 257 high + ahead
    rounded = high + (ahead > 128) - (ahead < -128)
    picture.paste(Image.fromarray(rounded.astype(np.uint8), picture.mode))
    key = picture.info.pop("transparency", None)
    if isinstance(key, tuple):
        equal = (high.astype(np.int32) * 256 + low == key).all(-1)
        picture.putalpha(Image.fromarray(np.where(equal, 0, 255).astype(np.uint8)))


def _crop(picture: Image.Image, left: int, top: int, side: int) -> Image.Image:
    if left < 0 or top < 0 or side < 1 or left + side > picture.width or top + side > picture.height:
        raise UnreadableImage(
            f"the box {left},{top},{side} (left, top, side) is outside of its {picture.width} x {picture.height} pixels"
        )
    return picture.crop((left, top, left + side, top + side))


@cache
def _formats() -> tuple[str, ...]:
    """The formats of ``stores.IMAGE_ENDINGS``. Pillow knows others, one of which (EPS) would start a program."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return the transform that turns an image upright, from its EXIF orientation; None if missing or damaged."""
    try:
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises many types: SyntaxError, struct.error, ValueError, ...
        return None


def without_metadata(data: bytes) -> bytes | None:
    """Strip an image file of everything that its pixels do not need, for a second attempt; None for most formats.

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
    """Yield the type and bytes of every chunk, up to the end of the file or the first invalid chunk."""
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
    """Yield the segments that matter for pixels or orientation; everything after the first scan is one segment."""
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
    """Return the file with a new first directory at its end, which lists only the tags of the pixels."""
    (start,) = struct.unpack_from(f"{order}I", data, 4) if len(data) >= 8 else (len(data),)
    (count,) = struct.unpack_from(f"{order}H", data, start) if start + 2 <= len(data) else (0,)
    entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [e for e in entries if len(e) == 12 and struct.unpack(f"{order}H", e[:2])[0] in TIFF_TAGS]
    header = data[:4] + struct.pack(f"{order}I", len(data))
    return header + data[8:] + struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)


def _eight_bits(picture: Image.Image, *, alpha: bool = False) -> Image.Image:
    """Convert any mode to L or RGB, or with ``alpha`` to LA or RGBA, which are transparent where the image is."""
    mode = picture.mode
    if mode in ("L", "RGB") and not picture.has_transparency_data:
        return picture
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_grey_levels(np.asarray(picture), mode))
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        if alpha:
            return colours.convert("LA") if mode in ("L", "LA", "La") else colours
        ground = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(ground, colours).convert("L" if mode in ("L", "LA", "La") else "RGB")
    return picture.convert("L" if mode in ("1", "L") else "RGB")


def _grey_levels(values: np.ndarray, mode: str) -> np.ndarray:
    """Convert gray values of more than 8 bits to uint8, rounded."""
    low, high = float(values.min()), float(values.max())
    if mode == "F":
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise UnreadableImage(f"floating-point values from {low:g} to {high:g}; expected 0 to 1")
        return np.round(values * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise UnreadableImage(f"32-bit values from {low:g} to {high:g}; expected 16 bits, 0 to 65535")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
