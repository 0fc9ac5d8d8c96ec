"""From the bytes of an image file to an array, whatever colour mode the file has."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from orthogan.data.resize import centre_crop, resized, to_array


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
    floats are taken to run from 0 to 1. Raises UnreadableImage for anything that gives no picture: an empty,
    foreign or truncated file, more pixels than Pillow's limit against decompression bombs, an unknown white level.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        picture = Image.open(io.BytesIO(data))
        # Phones store a photograph and its preview as two "frames" of an MPO file: that is no animation.
        animated = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
        ImageOps.exif_transpose(picture, in_place=True)
        picture = resized(_eight_bits(centre_crop(picture)), resolution)
        if channels == 3 and picture.mode == "RGB":  # a tenth of the time of a small file is not to turn it round
            return Decoded(np.asarray(picture).transpose(2, 0, 1), animated)
        return Decoded(to_array(picture, channels), animated)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image in a format that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too many pixels to be decoded safely ({error})") from error
    except Exception as error:  # Pillow's decoders raise almost any type on damaged data
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error


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
