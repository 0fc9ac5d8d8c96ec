"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthogan.training.trackers.tracker import STEP, TRACKERS, AccelerateTracker


@TRACKERS.register("wandb")
class WandB(AccelerateTracker):
    """Weights & Biases (``pip install wandb``); its curves have their own axis of steps, so a score may arrive late."""

    package, install, kind = "wandb", "wandb", "WandBTracker"

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Continue the run of that id, if there is one."""
        return {"name": run.name, "dir": str(run), "id": known, "resume": "allow"}

    def identity(self) -> object:
        """Return the id of the run."""
        return self.tracker.tracker.id

    def start(self, run: Path, project: str, known: str | None) -> str:
        """Start the run, and define the axis of its curves."""
        identity = super().start(run, project, known)
        self.tracker.tracker.define_metric(STEP)
        self.tracker.tracker.define_metric("*", step_metric=STEP)
        return identity

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show one point of several curves."""
        self.tracker.log({**values, STEP: step})

    def image(self, name: str, path: Path, step: int) -> None:
        """Show a picture."""
        import wandb  # pyright: ignore[reportMissingImports]

        self.tracker.log({name: wandb.Image(str(path)), STEP: step})
