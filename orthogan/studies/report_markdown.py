"""A report as Markdown, with its drawings and pictures in folders beside it, so that it can be moved with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orthogan.io.read import UnreadableFile, read_regular
from orthogan.io.write import write_bytes, write_text
from orthogan.studies.document import Block, Bullets, Code, Drawings, Grid, Heading, Pictures, Words, slug, storable

CURVES, PICTURES = "curves", "pictures"  # folders of drawings, and of copies of pictures


def write_markdown(blocks: Sequence[Block], folder: Path) -> Path:
    """``REPORT.md``, ``curves/*.svg`` and ``pictures/*`` in ``folder``; those of an earlier report go."""
    for old in [*(folder / CURVES).glob("*.svg"), *(folder / PICTURES).glob("*")]:
        old.unlink()
    path = folder / "REPORT.md"
    write_text(path, storable("\n\n".join(_block(block, folder) for block in blocks) + "\n"))
    return path


def _block(block: Block, folder: Path) -> str:
    match block:
        case Heading(words, level):
            return f"{'#' * level} {words}"
        case Words(words):
            return words
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text, language):
            return f"```{language}\n{text}\n```"
        case Grid():
            return grid_text(block)
        case Drawings():
            return _drawings(block, folder)
        case Pictures(files, caption):
            return "\n".join([*([caption, ""] if caption else []), *(_picture(*one, folder) for one in files)])


def grid_text(grid: Grid) -> str:
    """A table as Markdown."""
    lines = [grid.head, ["---", *["---:"] * (len(grid.head) - 1)], *grid.lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _drawings(block: Drawings, folder: Path) -> str:
    shown = []
    for index, svg in enumerate(block.svgs):
        path = folder / CURVES / (f"{block.name}.svg" if len(block.svgs) == 1 else f"{block.name}-{index + 1}.svg")
        write_text(path, svg + "\n")
        shown.append(f"![{block.caption}]({_relative(path, folder)})")
    return "\n".join([*shown, "", block.caption])


def _picture(words: str, path: Path, folder: Path) -> str:
    """The file's copy, or a word about its absence; copies of one name are told apart by where they lie."""
    name = slug(*path.relative_to(folder).with_suffix("").parts) if path.is_relative_to(folder) else slug(str(path))
    copy = folder / PICTURES / f"{name}{path.suffix}"
    try:
        content = read_regular(path)
    except UnreadableFile as error:
        return f"{words}: {error.reason}"
    write_bytes(copy, content)
    return f"![{words}]({_relative(copy, folder)})"


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/").replace(" ", "%20")
