"""One call for every form of a traversal; the suffix of the path chooses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from orthogan.errors import UserError
from orthogan.latent.render_animation import save_animation
from orthogan.latent.render_grid import save_grid
from orthogan.latent.render_html import save_html
from orthogan.latent.traverse import Traversal

RENDERERS: dict[str, Callable[[Traversal, str | os.PathLike[str]], Path]] = {
    ".png": save_grid,
    ".gif": save_animation,
    ".webp": save_animation,
    ".html": save_html,
}


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` unless ``render`` knows the suffix; worth asking before a long traversal."""
    if Path(path).suffix.lower() not in RENDERERS:
        raise UserError(f"--out {path}: a traversal is written as {', '.join(RENDERERS)}; choose one of these suffixes")


def render(traversal: Traversal, path: str | os.PathLike[str]) -> Path:
    """Write ``traversal`` to ``path`` as a picture, a loop or a page, by its suffix. Raises ``UserError``."""
    check_suffix(path)
    return RENDERERS[Path(path).suffix.lower()](traversal, path)
