"""MLflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orthogan.training.trackers.tracker import TRACKERS, AccelerateTracker, picture


@TRACKERS.register("mlflow")
class MLflow(AccelerateTracker):
    """MLflow (``pip install mlflow``)."""

    package, install, kind = "mlflow", "mlflow", "MLflowTracker"

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Continue the run of that id, if there is one."""
        return {"run_name": run.name, "run_id": known}

    def identity(self) -> object:
        """Return the id of the run."""
        return self.tracker.tracker.info.run_id

    def image(self, name: str, path: Path, step: int) -> None:
        """Show a picture."""
        import mlflow  # pyright: ignore[reportMissingImports]

        mlflow.log_image(picture(path), key=name, step=step)

    def name_of(self, curve: str) -> str:
        """Replace the characters that MLflow refuses."""
        return re.sub(r"[^\w\-. :/]", "_", curve)
