"""trackio, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orthogan.training.trackers.tracker import TRACKERS, AccelerateTracker


@TRACKERS.register("trackio")
class Trackio(AccelerateTracker):
    """trackio (``pip install trackio``)."""

    package, install, kind = "trackio", "trackio", "TrackioTracker"

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Continue the run of that name, if there is one."""
        return {"name": known or run.name, "resume": "allow" if known else "never"}

    def identity(self) -> object:
        """Return the name of the run."""
        return self.tracker.tracker.name

    def image(self, name: str, path: Path, step: int) -> None:
        """Show a picture."""
        import trackio  # pyright: ignore[reportMissingImports]

        self.tracker.log({name: trackio.Image(str(path))}, step=step)
