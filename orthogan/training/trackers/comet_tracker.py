"""Comet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orthogan.training.trackers.tracker import TRACKERS, AccelerateTracker


@TRACKERS.register("comet")
class Comet(AccelerateTracker):
    """Comet (``pip install comet-ml``)."""

    package, install, kind = "comet_ml", "comet-ml", "CometMLTracker"

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Continue the experiment of that key, if there is one."""
        return {"experiment_key": known, "mode": "get" if known else "create"}

    def identity(self) -> object:
        """Return the key of the experiment."""
        return self.tracker.tracker.get_key()

    def start(self, run: Path, project: str, known: str | None) -> str:
        """Start the experiment, and name it."""
        identity = super().start(run, project, known)
        self.tracker.tracker.set_name(run.name)
        return identity

    def image(self, name: str, path: Path, step: int) -> None:
        """Show a picture."""
        self.tracker.tracker.log_image(str(path), name=name, step=step)
