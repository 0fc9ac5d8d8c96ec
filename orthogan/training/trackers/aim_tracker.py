"""Aim, in the folder .aim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orthogan.training.trackers.tracker import TRACKERS, AccelerateTracker, picture


@TRACKERS.register("aim")
class Aim(AccelerateTracker):
    """Aim (``pip install aim``)."""

    package, install, kind = "aim", "aim", "AimTracker"

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Continue the run of that hash, if there is one."""
        return {"run_hash": known}

    def identity(self) -> object:
        """Return the hash of the run."""
        return self.tracker.tracker.hash

    def start(self, run: Path, project: str, known: str | None) -> str:
        """Start the run, and name it: Accelerate gives the project as its name."""
        identity = super().start(run, project, known)
        self.tracker.tracker.name, self.tracker.tracker.experiment = run.name, project
        return identity

    def image(self, name: str, path: Path, step: int) -> None:
        """Show a picture."""
        self.tracker.log_images({name: picture(path)}, step=step)
