"""Grids of images, optionally sorted by class, and PNG files with metadata."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from orthogan.drawing.text import Font, fit
from orthogan.errors import UserError
from orthogan.io.write import write_bytes
from orthogan.words import counted

BACKGROUND = (250, 250, 250)
INK = (40, 40, 44)
DAMAGED = "the images contain NaN or infinite values; the generator is damaged"
READABLE_SIDE = 64  # pixels: smaller images are magnified to at least this size by default
FONT_SIZE = 12
MOST_CHANNELS = 16


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Convert images in [-1, 1] to uint8, clipping values outside and rounding to nearest."""
    return ((images.float().clamp(-1, 1) * 127.5) + 127.5).round().to(torch.uint8)


def as_pixels(images: np.ndarray | torch.Tensor) -> np.ndarray:
    """Convert ``images`` (n, c, h, w), uint8 or floats in [-1, 1], to a uint8 array.

    Raises ``UserError`` for another shape or type, or non-finite values.
    """
    tensor = torch.as_tensor(images).detach()
    if tensor.ndim != 4 or tensor.shape[1] > MOST_CHANNELS or 0 in tensor.shape:
        raise UserError(f"images of shape {tuple(tensor.shape)}: expected (n, 1 to {MOST_CHANNELS}, height, width)")
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(DAMAGED)
        tensor = to_uint8(tensor)
    if tensor.dtype != torch.uint8:
        raise UserError(f"images of type {tensor.dtype}: expected uint8, or floats in [-1, 1]")
    return tensor.cpu().contiguous().numpy()


def to_picture(image: np.ndarray) -> Image.Image:
    """Convert a uint8 image (c, h, w) to Pillow's gray, RGB, or with 2 or 4 channels the same with alpha.

    Of more channels, the first three are shown as red, green and blue.
    """
    if len(image) == 1:
        return Image.fromarray(np.ascontiguousarray(image[0]))
    shown = image if len(image) <= 4 else image[:3]
    return Image.fromarray(np.ascontiguousarray(shown.transpose(1, 2, 0)))


def on_white(images: np.ndarray) -> np.ndarray:
    """Convert uint8 images (..., c, h, w) to 1 or 3 channels: alpha on white, of more than four the first three."""
    channels = images.shape[-3]
    if channels not in (2, 4):
        return images if channels in (1, 3) else images[..., :3, :, :]
    color, alpha = images[..., :-1, :, :].astype(np.uint32), images[..., -1:, :, :].astype(np.uint32)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def default_scale(height: int, width: int, side: int = READABLE_SIDE) -> int:
    """Return the smallest integer magnification with which the longer side has at least ``side`` pixels."""
    return max(1, math.ceil(side / max(height, width)))


def magnify(image: np.ndarray, scale: int) -> Image.Image:
    """Convert a uint8 image (c, h, w) to RGB, with each pixel as a ``scale`` x ``scale`` square; alpha on white."""
    image = on_white(image)
    rgb = np.broadcast_to(image, (3, *image.shape[1:])) if image.shape[0] == 1 else image
    return Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)))


def enlarge(image: np.ndarray, side: int, *, smooth: bool = False) -> Image.Image:
    """One uint8 image (c, h, w) as an RGB picture of ``side`` pixels in width, in its own proportions.

    Args:
        image: the image.
        side: width of the picture.
        smooth: resample with a Lanczos filter; otherwise each pixel stays a sharp square.
    """
    picture = magnify(image, 1)
    size = (side, max(1, round(side * picture.height / picture.width)))
    return picture.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def class_layout(labels: np.ndarray | torch.Tensor | Sequence[int], *, per_row: int | None = None) -> np.ndarray:
    """Arrange images by class as (rows, per_row) indices, so that no row mixes classes; -1 is an empty cell.

    Classes ascend from top to bottom, and images keep their order within a class.

    Args:
        labels: the class of each image (n,).
        per_row: images per row; a class with more continues in the next row (default: the size of the largest class).

    Raises:
        UserError: there is no image, or ``labels`` or ``per_row`` is invalid.

    Example:
        >>> from orthogan.latent import class_layout
        >>> class_layout([0, 1, 0, 0, 1]).tolist()
        [[0, 2, 3], [1, 4, -1]]
    """
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0:
        raise UserError(f"labels have shape {values.shape}: expected one label per image, and at least one image")
    classes, counts = np.unique(values, return_counts=True)
    width = int(counts.max()) if per_row is None else per_row
    if width < 1:
        raise UserError(f"per_row={per_row}: must be at least 1")
    rows: list[np.ndarray] = []
    for label in classes:
        members = np.flatnonzero(values == label)
        for start in np.arange(0, members.size, width):
            row = np.full(width, -1, dtype=np.int64)
            part = members[start : start + width]
            row[: part.size] = part
            rows.append(row)
    return np.stack(rows)


def image_grid(
    images: np.ndarray | torch.Tensor,
    *,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
    pad: int = 2,
    layout: np.ndarray | None = None,
    row_labels: Sequence[str] | None = None,
) -> Image.Image:
    """Draw images in one grid, row by row.

    Args:
        images: (n, c, h, w), uint8 or float in [-1, 1]; the value range is fixed, and alpha is shown on white.
        columns: number of columns (default: nearly square).
        labels: one text per image, drawn below it.
        scale: integer nearest-neighbor magnification (default: small images are enlarged to 64 pixels).
        pad: width of the gutter [pixels].
        layout: indices (rows, columns) of the images, -1 for an empty cell, such as ``class_layout`` returns; replaces
            ``columns``.
        row_labels: one text per row of ``layout``, drawn on its left.

    Raises:
        UserError: an argument is invalid.

    Example:
        >>> import numpy as np
        >>> from orthogan.latent import image_grid
        >>> image_grid(np.zeros((6, 1, 8, 8), np.uint8), columns=3, scale=1).size
        (32, 22)
    """
    pixels = as_pixels(images)
    count, _, height, width = pixels.shape
    zoom = default_scale(height, width) if scale is None else scale
    if zoom < 1 or pad < 0 or (columns is not None and columns < 1):
        raise UserError(f"columns={columns}, scale={scale}, pad={pad}: must be at least 1, 1 and 0")
    if labels is not None and len(labels) != count:
        raise UserError(f"{counted(len(labels), 'label')} for {counted(count, 'image')}; expected one label per image")
    if layout is None:
        across = min(count, math.ceil(math.sqrt(count)) if columns is None else columns)
        cells = np.full(math.ceil(count / across) * across, -1, dtype=np.int64)
        cells[:count] = np.arange(count)
        cells = cells.reshape(-1, across)
    else:
        cells = np.asarray(layout)
        if cells.ndim != 2 or cells.size == 0 or cells.min() < -1 or cells.max() >= count:
            raise UserError(f"a layout of {count} images is a (rows, columns) array of indices -1 … {count - 1}")
    if row_labels is not None and len(row_labels) != len(cells):
        raise UserError(f"{counted(len(row_labels), 'row label')} for {counted(len(cells), 'row')}")

    font = Font(FONT_SIZE)
    caption = font.line_height if labels is not None else 0
    margin = 0
    if row_labels is not None:
        margin = min(160, max(math.ceil(font.width(text)) for text in row_labels)) + 2 * pad + 4
    step_x, step_y = width * zoom + pad, height * zoom + caption + pad
    picture = Image.new("RGB", (margin + cells.shape[1] * step_x + pad, cells.shape[0] * step_y + pad), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for (row, column), index in np.ndenumerate(cells):
        if index < 0:
            continue
        x, y = margin + pad + column * step_x, pad + row * step_y
        picture.paste(magnify(pixels[int(index)], zoom), (x, y))
        if labels is not None:
            text = fit(labels[int(index)], font, width * zoom)
            font.draw(draw, (x + width * zoom / 2, y + height * zoom + caption / 2), text, INK, anchor="mm")
    if row_labels is not None:
        for row, text in enumerate(row_labels):
            middle = pad + row * step_y + height * zoom / 2
            font.draw(draw, (margin - 4, middle), fit(text, font, 160), INK, anchor="rm")
    return picture


def class_grid(
    images: np.ndarray | torch.Tensor, labels: np.ndarray | Sequence[int], class_names: Sequence[str] = ()
) -> Image.Image:
    """All ``images`` with the names of their classes; ``labels`` (n,) are numbers, also where there are no names.

    The classes are rows where they have four or more images each on average, else a caption under each image.
    """
    numbers = [int(label) for label in labels]
    titles = {c: str(class_names[c]) if c < len(class_names) else f"class {c}" for c in set(numbers)}
    if len(numbers) < 4 * len(titles):
        return image_grid(images, labels=[titles[label] for label in numbers])
    # Long rows of few classes are folded, so that the picture stays near a square.
    per_row = min(max(map(numbers.count, titles)), max(8, math.ceil(math.sqrt(len(numbers)))))
    layout = class_layout(numbers, per_row=per_row)
    rows = [titles[numbers[int(row[0])]] for row in layout]
    return image_grid(images, layout=layout, row_labels=rows)


def tile_pictures(pictures: Sequence[tuple[str, Image.Image]], *, most: int = 800) -> Image.Image:
    """Tile ``pictures``, each below its caption, reducing those with a side of more than ``most`` pixels."""
    font, gap = Font(FONT_SIZE + 1), 8
    small = [(words, image.copy()) for words, image in pictures]
    for _, image in small:
        image.thumbnail((most, most))
    width = max(120, *(image.width for _, image in small)) + gap
    height = max(image.height for _, image in small) + font.line_height + gap
    rows = max(1, round(math.sqrt(len(small) * width / height / 1.5)))
    columns = math.ceil(len(small) / rows)
    sheet = Image.new("RGB", (columns * width + gap, math.ceil(len(small) / columns) * height + gap), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (words, image) in enumerate(small):
        x, y = gap + index % columns * width, gap + index // columns * height
        font.draw(draw, (x, y), fit(words, font, width - gap), INK)
        sheet.paste(image, (x, y + font.line_height))
    return sheet


def save_png(image: Image.Image, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Path:
    """Write ``image`` as a PNG whose text chunks hold ``metadata`` (read them back from ``Image.open(p).text``).

    The file is written atomically. Raises ``UserError`` if it cannot be written.

    Example:
        >>> import numpy as np
        >>> from orthogan.latent import image_grid, save_png
        >>> grid = image_grid(np.zeros((4, 3, 8, 8), np.uint8))
        >>> save_png(grid, "grid.png", {"seeds": "0-3"}).name
        'grid.png'
    """
    info = PngInfo()
    for key, value in (metadata or {}).items():
        # Latin-1 as tEXt, everything else as UTF-8 iTXt; file names may contain bytes that are not text.
        info.add_text(key, value.encode("utf-8", "backslashreplace").decode())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return write_bytes(path, buffer.getvalue())
