"""A report as one page that needs no other file: drawings inline, pictures as data, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from orthogan.io.read import UnreadableFile, read_regular
from orthogan.io.write import write_text
from orthogan.studies.document import Block, Bullets, Code, Drawings, Grid, Heading, Pictures, Words, storable

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222226; background: #fff; max-width: 1440px; margin: 2em auto;
  padding: 0 1em; }
p, ul { max-width: 60em; }
h1, h2, h3 { line-height: 1.2; margin-top: 1.6em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .25em .7em; border-bottom: 1px solid #e4e4e8; text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #aaa; }
pre { background: #f5f5f7; padding: .8em; overflow-x: auto; }
code { font-size: 13px; }
figure { margin: 1em 0; }
.row { display: flex; flex-wrap: wrap; gap: 1em; }
.row img { max-width: 320px; height: auto; image-rendering: pixelated; }
.row svg { max-width: 100%; height: auto; }
figcaption { color: #55555c; font-size: 14px; }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_html(blocks: Sequence[Block], folder: Path, title: str) -> Path:
    """``report.html`` in ``folder``."""
    path = folder / "report.html"
    body = storable("\n".join(_block(block) for block in blocks))
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
    )
    return path


def _block(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"<h{level}>{_inline(words)}</h{level}>"
        case Words(words):
            return f"<p>{_inline(words)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"
        case Code(text, _):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Grid(head, lines):
            return _grid(head, lines)
        case Drawings(_, svgs, caption):
            return _figure("\n".join(svgs), caption)
        case Pictures(files, caption):
            return _figure("\n".join(_picture(text, path) for text, path in files), caption)


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head)
    rows = "\n".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _figure(inside: str, caption: str) -> str:
    return f'<figure><div class="row">\n{inside}\n</div><figcaption>{_inline(caption)}</figcaption></figure>'


def _picture(words: str, path: Path) -> str:
    """The file itself in the page, or a word about its absence."""
    try:
        data = base64.b64encode(read_regular(path)).decode("ascii")
    except UnreadableFile as error:
        return f"<p>{escape(words)}: {escape(error.reason)}</p>"
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return (
        f'<figure><img src="data:{kind};base64,{data}" alt="{escape(words, quote=True)}">'
        f"<figcaption>{_inline(words)}</figcaption></figure>"
    )


def _inline(words: str) -> str:
    """Escaped, with `code` and **strong** as elements."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
