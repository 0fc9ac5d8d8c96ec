"""Resize and convert the color mode of images, in the same way for every source.

Images are cropped to the central square and resized with Pillow's Lanczos filter, whose support grows with the
reduction to avoid aliasing. Gray is ITU-R 601 luma; a grayscale image becomes RGB by repetition.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.threads import in_threads

MOST_PIXELS = 1 << 26  # limit for an image before cropping and resizing; up to 16 threads work at once
TRANSFORM = "centre crop, lanczos"  # for fingerprints, which must not change (words: allow)
SMALL_PICTURE = 128 * 128  # threads are worthwhile for images with more pixels


def centre_crop(picture: Image.Image) -> Image.Image:
    """Crop the largest central square; an odd pixel of margin is cut at the right or the bottom."""
    width, height = picture.size
    side = min(width, height)
    if width == height:
        return picture
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def resize_image(picture: Image.Image, resolution: int) -> Image.Image:
    """Resize a square image of mode L or RGB to ``resolution`` pixels; returns the image itself if it has that size."""
    if picture.size == (resolution, resolution):
        return picture
    return picture.resize((resolution, resolution), Image.Resampling.LANCZOS)


def to_array(picture: Image.Image, channels: int) -> np.ndarray:
    """Convert an image of mode L or RGB to uint8 (channels, h, w)."""
    if channels == 1:
        return np.array(picture.convert("L"))[None]
    return np.ascontiguousarray(np.array(picture.convert("RGB")).transpose(2, 0, 1))


def check_images(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Raise UserError unless there are N images (N, H, W) or (N, H, W, 1 or 3), uint8 or bool."""
    where = printable(name)
    if dtype.kind == "f":
        raise UserError(
            f"{where}: images must be uint8 from 0 to 255, not {dtype}; if they are from 0 to 1, save "
            "(255 * images).round().astype('uint8')"
        )
    if dtype not in (np.uint8, np.bool_):
        raise UserError(f"{where}: images must be uint8 from 0 to 255, not {dtype}")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise UserError(f"{where}: images must be (N, H, W) or (N, H, W, 1 or 3), not {shape}")
    if not 1 <= shape[1] * shape[2] <= MOST_PIXELS:
        raise UserError(f"{where}: images must have 1 to {MOST_PIXELS >> 20} Mi pixels, not {shape[1]} x {shape[2]}")


def fit_arrays(images: np.ndarray, *, resolution: int, channels: int, name: str) -> np.ndarray:
    """Convert stored images uint8 (N, H, W) or (N, H, W, 1 or 3) to (N, channels, resolution, resolution).

    For bool images, True is white. Returns a view if nothing has to change. Raises UserError for other shapes or types.
    """
    check_images(images.shape, images.dtype, name)
    if images.dtype == np.bool_:
        images = images * np.uint8(255)
    if images.ndim == 3:
        images = images[..., None]
    stored, height, width = images.shape[3], images.shape[1], images.shape[2]
    if (height, width) == (resolution, resolution) and stored == channels:
        return images.transpose(0, 3, 1, 2)
    if (height, width) == (resolution, resolution) and stored == 1:
        return np.repeat(images.transpose(0, 3, 1, 2), channels, axis=1)

    def fit(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image[..., 0] if stored == 1 else image)
        return to_array(resize_image(centre_crop(picture), resolution), channels)

    each = in_threads if height * width > SMALL_PICTURE else map
    fitted = np.empty((len(images), channels, resolution, resolution), np.uint8)
    for i, array in enumerate(each(fit, images)):
        fitted[i] = array
    return fitted
