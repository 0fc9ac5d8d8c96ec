"""Training: the loop, its phases and checkpoints; the entry points are ``train`` and ``dry_run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthogan.lazy import lazy_names

if TYPE_CHECKING:
    from orthogan.training.run import dry_run, train
    from orthogan.training.trackers.tracker import Tracker

__all__ = ["Tracker", "dry_run", "train"]

# reading a config only needs the sections
__getattr__, __dir__ = lazy_names(__name__, {"run": ("dry_run", "train"), "trackers.tracker": ("Tracker",)})
