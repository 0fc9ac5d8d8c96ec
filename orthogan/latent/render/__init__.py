"""Rendering of traversals in every format, chosen by the suffix of the path."""

from __future__ import annotations

import os
from pathlib import Path

from orthogan.arguments import checked, some_path
from orthogan.errors import UserError
from orthogan.latent.render.animation import need_av, save_animation, save_video
from orthogan.latent.render.html import save_html
from orthogan.latent.render.loop import LARGEST_SIDE
from orthogan.latent.render.picture import save_grid, save_sheet
from orthogan.latent.render.plain import save_plain
from orthogan.latent.traverse import ContactSheet, Traversal

SUFFIXES = (".png", ".gif", ".webp", ".mp4", ".html")
HEATMAPS = (".png", ".html")
SHEETS = (".png",)
PLAIN = (".png", ".gif", ".webp", ".mp4")


def check_suffix(
    path: str | os.PathLike[str], *, heatmap: bool = False, sheet: bool = False, plain: bool = False
) -> None:
    """Raise ``UserError`` unless ``render`` can write this path; check it before a long traversal.

    ``sheet``: a contact sheet, not a traversal. ``heatmap``: with maps of where it changes.
    """
    suffix = some_path("path", path).suffix.lower()
    what, known = ("a contact sheet of several seeds", SHEETS) if sheet else ("a traversal", SUFFIXES)
    if suffix not in known:
        raise UserError(f"{path}: {what} can be written as {', '.join(known)}; choose one of these suffixes")
    if heatmap and suffix not in HEATMAPS:
        raise UserError(f"{path}: heat maps are only available for {' and '.join(HEATMAPS)}; omit them")
    if plain and (sheet or suffix not in PLAIN or heatmap):
        raise UserError(
            f"{path}: a traversal without captions is written as {', '.join(PLAIN)}, of one seed and without heat-maps"
        )
    if suffix == ".mp4":
        need_av()


@checked
def render(
    traversal: Traversal | ContactSheet,
    path: str | os.PathLike[str] | None = None,
    *,
    heatmap: bool = False,
    plain: bool = False,
    side: int | None = None,
    smooth: bool = False,
) -> Path:
    """Write a traversal as a picture, animation or page, or a contact sheet as a picture.

    Args:
        traversal: the result of ``orthogan.traverse`` or ``orthogan.latent.contact_sheet``.
        path: the file to write. Its suffix chooses the format: .png, .gif, .webp, .mp4 or .html; a contact sheet is a
            .png.
        heatmap: show beside each row where its two ends differ from the center (.png, .html). A page always has a
            button for these maps; this switches them on at the start.
        plain: write the images alone, without captions (not for .html).
        side: width in pixels, with ``plain``; by default small images are magnified.
        smooth: resample smoothly, with ``plain``, instead of with sharp pixels.

    Returns:
        The path of the file.

    Raises:
        UserError: the suffix or an option does not apply, or the file cannot be written.

    Example:
        >>> import orthogan
        >>> generator = orthogan.load("sprites-sngan")
        >>> walk = orthogan.traverse(generator, dims=[0, 1], steps=3)
        >>> orthogan.render(walk, "walk.png").name
        'walk.png'
    """
    if not isinstance(traversal, Traversal | ContactSheet):
        raise TypeError(
            f"render needs the result of orthogan.traverse or contact_sheet, not a {type(traversal).__name__}"
        )
    if path is None:
        raise TypeError(f"render needs a path whose suffix chooses the format: {', '.join(SUFFIXES)}")
    check_suffix(path, heatmap=heatmap, sheet=isinstance(traversal, ContactSheet), plain=plain)
    if not plain and (side is not None or smooth):
        raise UserError("side and smooth need plain=True: pictures with captions have a fixed size")
    if side is not None and not 1 <= side <= LARGEST_SIDE:
        raise UserError(f"side={side}: from 1 to {LARGEST_SIDE} pixels")
    if isinstance(traversal, ContactSheet):
        return save_sheet(traversal, path, heatmap=heatmap)
    if plain:
        return save_plain(traversal, path, side=side, smooth=smooth)
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        return save_grid(traversal, path, heatmap=heatmap)
    if suffix == ".html":
        return save_html(traversal, path, heatmap=heatmap)
    return save_video(traversal, path) if suffix == ".mp4" else save_animation(traversal, path)
