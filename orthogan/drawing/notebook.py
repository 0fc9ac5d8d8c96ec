"""How results show themselves in a notebook: tables and pages as HTML, pictures as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

from PIL import Image


def png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file, for ``_repr_png_``."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def html_table(
    rows: Sequence[Sequence[object]], head: Sequence[object], *, caption: str = "", details: Sequence[object] = ()
) -> str:
    """Return a table as HTML, for ``_repr_html_``: the first column holds text, the others numbers.

    All texts are escaped. ``details``: for each row, a text that is shown when the pointer rests on the row.
    """
    aligned = ["left", *["right"] * (len(head) - 1)]

    def line(cells: Sequence[object], tag: str, title: object = "") -> str:
        parts = zip(cells, aligned, strict=True)
        inside = "".join(
            f'<{tag} style="text-align: {side}; padding: 0.2em 0.8em">{escape(str(cell))}</{tag}>'
            for cell, side in parts
        )
        return f'<tr title="{escape(str(title))}">{inside}</tr>' if title else f"<tr>{inside}</tr>"

    titles = details or [""] * len(rows)
    body = "\n".join(line(row, "td", title) for row, title in zip(rows, titles, strict=True))
    above = f'<caption style="text-align: left">{escape(caption)}</caption>\n' if caption else ""
    return f"<table>\n{above}<thead>{line(head, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def html_frame(page: str, height: int) -> str:
    """Return a whole page in a frame of ``height`` pixels; its scripts cannot reach the notebook."""
    style = f"width: 100%; height: {height}px; border: 0"
    return f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" style="{style}"></iframe>'
