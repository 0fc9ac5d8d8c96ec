"""Resize and convert the color mode of images, in the same way for every source.

Images are cropped to the central square and resized with Pillow's Lanczos filter, whose support grows with the
reduction to avoid aliasing. Gray is ITU-R 601 luma; a grayscale image becomes RGB by repetition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.threads import in_threads
from orthogan.size import sides

MOST_PIXELS = 1 << 26  # limit for an image before cropping and resizing; up to 16 threads work at once
TRANSFORM = "centre crop, lanczos"  # for fingerprints, which must not change (words: allow)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of Pillow, by channels
MOST_CHANNELS = 16
SMALL_PICTURE = 128 * 128  # threads are worthwhile for images with more pixels


def centre_crop(picture: Image.Image, resolution: Any = 1) -> Image.Image:
    """Crop the largest central box with the proportions of ``resolution``: a square, or (height, width).

    An odd pixel of margin is cut at the right or the bottom.
    """
    width, height = picture.size
    down, across = sides(resolution)
    if width * down == height * across:
        return picture
    if down == across:
        wide = high = min(width, height)
    else:
        wide, high = min(width, round(height * across / down)), min(height, round(width * down / across))
    wide, high = max(wide, 1), max(high, 1)
    left, top = (width - wide) // 2, (height - high) // 2
    return picture.crop((left, top, left + wide, top + high))


def resize_image(picture: Image.Image, resolution: Any) -> Image.Image:
    """Resize a cropped image to ``resolution``; returns the image itself if it has that size.

    Colors of images with alpha are weighted by it.
    """
    height, width = sides(resolution)
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def to_array(picture: Image.Image, channels: int) -> np.ndarray:
    """Convert an image of mode L, LA, RGB or RGBA to uint8 (channels, h, w); lost alpha is replaced by white."""
    if channels not in MODES:
        raise UserError(f"data.channels is {channels}: image files have 1 to 4 channels; store more in an array")
    if channels in (1, 3):
        picture = on_white(picture)
    found = np.array(picture.convert(MODES[channels]))
    return found[None] if channels == 1 else np.ascontiguousarray(found.transpose(2, 0, 1))


def on_white(picture: Image.Image) -> Image.Image:
    """Composite an image of mode LA or RGBA on white; returns others as they are."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    colors = picture.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    return flat.convert("L" if picture.mode == "LA" else "RGB")


def is_deep(dtype: np.dtype) -> bool:
    """Whether images of this type are uint16 or floats."""
    return dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize == 2)


def check_images(shape: tuple[int, ...], dtype: np.dtype, name: str, *, deep: bool = False) -> None:
    """Raise UserError unless there are N images (N, H, W) or (N, H, W, C), uint8 or bool.

    ``deep``: uint16 and floats are accepted too.
    """
    where = printable(name)
    if dtype not in (np.uint8, np.bool_) and not (deep and is_deep(dtype)):
        wanted = "uint8, uint16, float or bool" if deep else "uint8 from 0 to 255"
        raise UserError(f"{where}: images must be {wanted}, not {dtype}")
    last = shape[3] if len(shape) == 4 else 1
    # channels come last; more than four are fewer than the pixels of a side
    if len(shape) not in (3, 4) or not 1 <= last <= (MOST_CHANNELS if min(shape[1:3]) > last else max(MODES)):
        raise UserError(f"{where}: images must be (N, H, W) or (N, H, W, 1 to {MOST_CHANNELS}), not {shape}")
    if not 1 <= shape[1] * shape[2] <= MOST_PIXELS:
        raise UserError(f"{where}: images must have 1 to {MOST_PIXELS >> 20} Mi pixels, not {shape[1]} x {shape[2]}")


def fit_arrays(images: np.ndarray, *, resolution: Any, channels: int, name: str) -> np.ndarray:
    """Convert stored images uint8 (N, H, W) or (N, H, W, C) to (N, channels, height, width).

    For bool images, True is white. Returns a view if nothing has to change. Raises UserError for other shapes or types.
    """
    check_images(images.shape, images.dtype, name)
    if images.dtype == np.bool_:
        images = images * np.uint8(255)
    if images.ndim == 3:
        images = images[..., None]
    stored, size = images.shape[3], images.shape[1:3]
    if size == sides(resolution) and stored == channels:
        return images.transpose(0, 3, 1, 2)
    if size == sides(resolution) and (stored, channels) == (1, 3):
        return np.repeat(images.transpose(0, 3, 1, 2), channels, axis=1)
    if stored != channels and max(stored, channels) > max(MODES):
        raise UserError(f"{printable(name)}: its images have {stored} channels; set data.channels to {stored}")

    def fit(image: np.ndarray) -> np.ndarray:
        if stored > max(MODES):  # each channel by itself
            planes = (Image.fromarray(np.ascontiguousarray(image[..., i])) for i in range(stored))
            return np.concatenate([to_array(resize_image(centre_crop(x, resolution), resolution), 1) for x in planes])
        picture = Image.fromarray(image[..., 0] if stored == 1 else image)
        return to_array(resize_image(centre_crop(picture, resolution), resolution), channels)

    each = in_threads if size[0] * size[1] > SMALL_PICTURE else map
    fitted = np.empty((len(images), channels, *sides(resolution)), np.uint8)
    for i, array in enumerate(each(fit, images)):
        fitted[i] = array
    return fitted
