"""What the loop knows of a task: nets, optimizers, and the phases of a step. It does not know what a GAN is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan.data import ImageSource
from orthogan.evaluation import MetricResult
from orthogan.io.checkpoint import Part
from orthogan.training.ema import Ema

Losses = tuple[Tensor, dict[str, Tensor]]  # what backward starts from, and 0-d tensors for the log


@dataclass(frozen=True)
class Phase:
    """One optimizer update: ``losses`` holds a pure function for each part of the batch (accumulation).

    The gradient is the mean over the parts and over the processes. ``regular`` is a penalty on the weights, which
    needs no batch: it is added once. ``per_step``: the average number of such updates per step.
    """

    name: str
    net: str
    losses: Iterator[Callable[[], Losses]]
    micro_batches: int = 1
    context: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)
    weight_penalty: Callable[[], Losses | None] = field(default=lambda: None)
    per_step: float = 1.0


class Task(Protocol):
    """Nets with their phases, and what is shown, scored and stored of them."""

    source: ImageSource
    nets: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    averages: dict[str, Ema]
    images_per_step: int
    period: int  # steps after which the phases of a step repeat

    def phases(self, step: int) -> Iterator[Phase]:
        """The updates of a step, in order; each is drawn only when the one before it is done."""
        ...

    def finish_step(self, step: int) -> None:
        """What happens once a step, after its phases."""
        ...

    def scalars(self) -> dict[str, float]:
        """Further numbers for the log (not called in every step)."""
        ...

    def spectrum(self, step: int) -> dict[str, Mapping[str, float]]:
        """Condition of each constrained layer, and what else is measured so seldom, by name."""
        ...

    def watch(self, step: int) -> dict[str, float]:
        """Numbers that tell whether the training goes wrong, by name; only the main process calls it."""
        ...

    def warnings(self) -> list[str]:
        """What the user should know of the last ``spectrum`` and ``watch``, one line each."""
        ...

    def files(self, step: int) -> dict[str, Part]:
        """The nets and whatever else must be stored, by file stem."""
        ...

    def restore(self, folder: Path) -> None:
        """The inverse of ``files``."""
        ...

    def pictures(self, path: Path, step: int) -> None:
        """Draw what the task has made so far."""
        ...

    def check_evaluation(self) -> None:
        """Find out at the start what would make a score fail; every process calls it. Raises ``UserError``."""
        ...

    def evaluate(self, step: int) -> list[MetricResult]:
        """Score the task; every process calls it."""
        ...

    def time_score(self) -> float:
        """Seconds that a score takes, from a small part of one; only some process calls it."""
        ...

    def summary(self) -> dict[str, Any]:
        """Facts for the user: parameter counts, data, device."""
        ...

    def close(self) -> None:
        """Stop reader processes."""
        ...
