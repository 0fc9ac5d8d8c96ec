"""Where what took long to compute is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$ORTHOGAN_CACHE, or ``orthogan`` in the user's cache folder."""
    chosen = os.environ.get("ORTHOGAN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(base) / "orthogan"
