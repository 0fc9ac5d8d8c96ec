"""What a run tells: a progress bar, ``log.jsonl`` and TensorBoard, from sums that stay on the device."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from orthogan.errors import CannotWrite
from orthogan.io.write import append_json
from orthogan.training.event_file import EventFile

LOG = "log.jsonl"
# an active layer gains no rank along its gradient, so one that was active comes to rest just below its target
NEAR = 0.98


class Means:
    """Running means of 0-d tensors by name; nothing waits for the device until ``fetch``."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in one value of each name."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def fetch(self) -> dict[str, float]:
        """The means since the last call (one transfer), starting anew."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())).tolist()
        means = {name: v / self._counts[name] for name, v in zip(self._sums, values, strict=True)}
        self._sums.clear()
        self._counts.clear()
        return means


class RunLog:
    """The main process's reporter; on the other processes every method does nothing.

    ``fresh``: the run starts from nothing, so that step 0 is logged as well.
    """

    def __init__(
        self,
        run: Path,
        *,
        start: int,
        steps: int,
        images_per_step: int,
        seconds: float,
        main: bool,
        tensorboard: bool,
        fresh: bool = False,
    ) -> None:
        self.path = run / LOG
        self.main = main
        self.images_per_step = images_per_step
        self._began = time.monotonic() - seconds
        self._events: EventFile | None = None
        self.bar = tqdm(
            total=steps * images_per_step,
            initial=start * images_per_step,
            unit="img",
            unit_scale=True,
            desc="train",
            disable=None if main else True,
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.5,
        )
        if main and tensorboard:
            with self._tensorboard():
                self._events = EventFile(run / "tensorboard", purge=0 if fresh else start * images_per_step + 1)

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, over all its sittings [s]."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """The steps begin: what was done before, such as a first score, does not count in the time that is left."""
        self.bar.unpause()

    def advance(self) -> None:
        """One step is done."""
        self.bar.update(self.images_per_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write losses and the like; the bar shows those of the two players."""
        if not self.main:
            return
        self._write({"step": step, "images": step * self.images_per_step, "seconds": round(self.seconds, 3), **values})
        for name, value in values.items():
            self._plot(name, value, step)
        self.bar.set_postfix({k: f"{v:.3g}" for k, v in values.items() if k.endswith("/loss")}, refresh=False)

    def spectrum(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        """Write the condition of every constrained layer, and say in how many the constraint binds."""
        if not self.main or not layers:
            return
        self._write({"step": step, "images": step * self.images_per_step, "spectrum": layers})
        for layer, values in layers.items():
            for name, value in values.items():
                self._plot(f"spectrum/{layer}/{name}", value, step)
        ranked = [values for values in layers.values() if "active" in values]
        if ranked:
            active = sum(bool(values["active"]) for values in ranked)
            near = sum(
                not v["active"] and v["target"] > 1 and v["stable_rank_before"] > NEAR * v["target"] for v in ranked
            )
            mean = sum(values["scale"] for values in ranked) / len(ranked)
            self.message(
                f"step {step}: stable-rank constraint active in {active} of {len(ranked)} layers "
                f"(mean scale {mean:.3f}), {near} more within {1 - NEAR:.0%} of their target"
            )

    def warn(self, step: int, lines: Sequence[str]) -> None:
        """Say each line, and keep it in the log."""
        for line in lines:
            self.message(f"warning: {line}")
            if self.main:
                self._write({"step": step, "images": step * self.images_per_step, "warning": line})

    def message(self, text: str) -> None:
        """A line above the progress bar."""
        if self.main:
            tqdm.write(text)
            sys.stdout.flush()  # also into a file, where it is looked for while the run goes on

    def plot(self, step: int, values: Mapping[str, float]) -> None:
        """Scores, for TensorBoard alone (they have a file of their own)."""
        for name, value in values.items():
            self._plot(name, value, step)
        self.flush()  # a score is stored, and so never measured again

    def flush(self) -> None:
        """Write the curves up to now: a resumed run does not plot again what came before its checkpoint."""
        with self._tensorboard():
            if self._events is not None:
                self._events.flush()

    def close(self) -> None:
        """Finish the bar and flush the files."""
        self.bar.close()
        with self._tensorboard():
            if self._events is not None:
                self._events.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        append_json(self.path, [_strict(record)], sync=False)

    def _plot(self, name: str, value: float, step: int) -> None:
        with self._tensorboard():
            if self._events is not None:
                self._events.scalar(name, float(value), step * self.images_per_step)

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        """A context in which an error of the disk ends the curves and not the run."""
        try:
            yield
        except CannotWrite as error:
            self._events = None
            self.message(f"warning: no more curves for TensorBoard in this sitting: {error}")


def _strict(value: Any) -> Any:
    """JSON has no infinity (the condition number of a matrix without full rank): null takes its place."""
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
