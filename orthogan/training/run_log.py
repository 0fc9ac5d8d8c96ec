"""Reports of a run: a progress bar or lines, ``log.jsonl``, TensorBoard and other trackers.

Sums stay on the device until they are reported.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from orthogan.errors import CannotWrite, UserError
from orthogan.io.json_lines import read_json_lines
from orthogan.io.write import append_json
from orthogan.progress import duration, is_terminal
from orthogan.training.pace import Pace
from orthogan.training.trackers.session import Trackers
from orthogan.training.trackers.tracker import TENSORBOARD

if TYPE_CHECKING:
    from orthogan.training.event_file import EventFile

LOG = "log.jsonl"
# an active layer gains no rank along its gradient, so it settles just below its target
NEAR = 0.98


def seconds_of(run: Path) -> float | None:
    """Seconds that the run took so far, over all its sessions, by its log; None where that does not tell."""
    try:
        records, _ = read_json_lines(run / LOG, lambda record: float(record.get("seconds", 0)))
    except UserError:
        return None
    return max((float(record["seconds"]) for record in records if "seconds" in record), default=None)


class Means:
    """Running means of 0-d tensors by name, without synchronizing with the device until ``fetch``."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one value per name."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def fetch(self) -> dict[str, float]:
        """Return the means since the last call (in one transfer), and reset them."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())).tolist()
        means = {name: v / self._counts[name] for name, v in zip(self._sums, values, strict=True)}
        self._sums.clear()
        self._counts.clear()
        return means


class RunLog:
    """The reporter of the main process; on other processes every method does nothing.

    On a terminal there is a progress bar. Elsewhere, as in a file, there is one line per logging interval instead.

    Args:
        trackers, project, config: see ``orthogan.training.trackers.session``.
        spectra: plot the condition of every layer, too.
        fresh: the run starts from nothing, so that step 0 is logged as well.
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
        spectra: bool = False,
        fresh: bool = False,
        trackers: Sequence[str] = (),
        project: str = "orthogan",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = run / LOG
        self.main = main
        self.steps, self.images_per_step = steps, images_per_step
        self.spectra = spectra
        self._began = time.monotonic() - seconds
        self._events: EventFile | None = None
        self._trackers: Trackers | None = None
        self.bar = _Bar(
            total=steps,
            initial=start,
            unit=" steps",
            desc="train",
            disable=not main or not is_terminal(),
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.5,
        )
        if main and tensorboard:
            from orthogan.training.event_file import EventFile  # imports tensorboard

            with self._tensorboard():
                self._events = EventFile(run / "tensorboard", purge=0 if fresh else start + 1)
        if main and any(name != TENSORBOARD for name in trackers):
            try:
                self._trackers = Trackers(
                    trackers,
                    run,
                    project=project,
                    config=config,
                    fresh=fresh,
                    warn=lambda line: self.warn(start, [line]),
                )
            except BaseException:
                self.close()
                raise

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, over all its sittings [s]."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """The steps begin: what was done before, such as a first score, does not count in the time that is left."""
        self.bar.unpause()

    def advance(self, left: float | None = None) -> None:
        """One step is done, and the rest of the run will take ``left`` seconds."""
        self.bar.left = left
        self.bar.update()

    def estimate(self, step: int, pace: Pace) -> None:
        """Say how long the run will take, once the pace is known."""
        each, left = pace.seconds_per_step, pace.left(step)
        if each is not None and left is not None:
            self.message(
                f"time: about {duration(left)} for the remaining {self.steps - step:,} steps on this machine "
                f"({each:.2g} s per step, plus scores, pictures and checkpoints)"
            )

    def scalars(
        self,
        step: int,
        losses: Mapping[str, float],
        others: Mapping[str, float] | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Write losses and other numbers; the bar, or a line where there is none, shows the losses of the nets."""
        if not self.main:
            return
        values = {**losses, **(others or {})}
        self._write({"step": step, "images": step * self.images_per_step, "seconds": round(self.seconds, 3), **values})
        self._plot({f"loss/{name.removesuffix('/loss')}": value for name, value in losses.items()}, step)
        named = (others or {}).items()
        self._plot({name if name.startswith("watch/") else f"watch/{name}": value for name, value in named}, step)
        shown = {k: f"{v:.3g}" for k, v in values.items() if k.endswith("/loss")}
        if not self.bar.disable:
            self.bar.set_postfix(shown, refresh=False)
            return
        left = None if pace is None or step == self.steps else pace.left(step)
        words = ", ".join(f"{name} {value}" for name, value in shown.items())
        self.message(
            f"step {step:,} of {self.steps:,}: {words}; {duration(self.seconds)} so far"
            + ("" if left is None else f", about {duration(left)} left")
        )

    def picture(self, step: int, path: Path) -> None:
        """Show the picture of ``path``, if it was drawn, in TensorBoard and other trackers; the real images once."""
        if not self.main:
            return
        shown = {"reals": path.with_name("reals.png")} if step == 0 else {}
        for name, file in {**shown, "samples": path}.items():
            if file.is_file():
                with self._tensorboard():
                    if self._events is not None:
                        self._events.image(name, file, step)
                if self._trackers is not None:
                    self._trackers.image(name, file, step)

    def spectrum(self, step: int, layers: Mapping[str, Mapping[str, float]]) -> None:
        """Write the condition of every constrained layer, and say in how many the constraint binds."""
        if not self.main or not layers:
            return
        self._write({"step": step, "images": step * self.images_per_step, "spectrum": layers})
        if self.spectra:
            named = {layer: values.items() for layer, values in layers.items()}
            self._plot({f"spectrum/{layer}/{name}": v for layer, some in named.items() for name, v in some}, step)
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

    def watch(self, step: int, values: Mapping[str, float]) -> None:
        """Write the signs of a training that goes wrong."""
        if not self.main or not values:
            return
        named = {f"watch/{name}": value for name, value in values.items()}
        self._write({"step": step, "images": step * self.images_per_step, **named})
        self._plot(named, step)

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
        """Scores, for TensorBoard and other trackers alone (they have a file of their own)."""
        self._plot(values, step)
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
        if self._trackers is not None:
            self._trackers.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        append_json(self.path, [_strict(record)], sync=False)

    def _plot(self, values: Mapping[str, float], step: int) -> None:
        with self._tensorboard():
            for name, value in values.items():
                if self._events is not None:
                    self._events.scalar(name, float(value), step)
        if self._trackers is not None:
            self._trackers.log(values, step)

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        """A context in which an error of the disk ends the curves and not the run."""
        try:
            yield
        except CannotWrite as error:
            self._events = None
            self.message(f"warning: no more curves for TensorBoard in this session: {error}")


class _Bar(tqdm):
    """A bar whose time left, and rate, are those of ``left`` [s], which counts the scores and pictures to come."""

    left: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar is drawn from."""
        found = dict(super().format_dict)
        return {**found, "rate": (self.total - self.n) / self.left} if self.left else found


def _strict(value: Any) -> Any:
    """Replace infinity (the condition number of a singular matrix) by null, since JSON has no infinity."""
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
