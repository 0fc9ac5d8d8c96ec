"""The scoring process as seen by the training process: its queue, results and failures."""

from __future__ import annotations

import select
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orthogan.background import Worker, WorkerEnded
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.evaluation.robustness.accuracy import Accuracy
from orthogan.io import checkpoint

WORKER = "orthogan.training.score_worker"
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # it scores alone
FAREWELL = 5.0  # seconds


@dataclass(frozen=True)
class Scored:
    """The scores of a step, or why they are missing."""

    step: int
    results: list[MetricResult]
    error: str = ""


class ScoreProcess:
    """Scores checkpoints of ``run`` in order in a separate process, which starts with the first checkpoint.

    It has the number of threads of this process, or half of them where both compute on the CPU, and always ends with
    it. A failed score stays ``unscored``, so its checkpoint is kept for another try.
    """

    def __init__(self, run: Path, config: Config, training_device: torch.device) -> None:
        self.run, self.config = run, config
        asked = config.evaluation.device
        self.device = str(training_device) if asked == "auto" else asked
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"evaluation.device is {asked!r}: {reason}; use 'cpu' or 'auto'") from None
        self.failed: dict[int, str] = {}
        self._queue: deque[int] = deque()
        self._current: int | None = None
        threads = torch.get_num_threads()
        if training_device.type == torch.device(self.device).type == "cpu":  # both compute on the same cores
            threads = max(1, threads // 2)
        about = {"config": config.model_dump(), "device": self.device, "threads": threads}
        self._worker = Worker(WORKER, dict.fromkeys(RANKS), about)

    @property
    def left(self) -> int:
        """Return the number of scores that are running or waiting."""
        return len(self._queue) + (self._current is not None)

    @property
    def unscored(self) -> set[int]:
        """Return the steps whose checkpoints are still needed."""
        current = set() if self._current is None else {self._current}
        return {*self._queue, *self.failed, *current}

    def add(self, step: int) -> None:
        """Queue the checkpoint of ``step`` for scoring."""
        self.failed.pop(step, None)
        if step not in self.unscored:
            self._queue.append(step)

    def poll(self, seconds: float = 0.0) -> Scored | None:
        """Return the next finished score, waiting at most until the timeout; also starts the next job."""
        self._begin()
        if self._current is None:
            return None
        if not select.select([self._worker], [], [], seconds)[0]:
            return None
        try:
            reply: dict[str, Any] = self._worker.receive()
        except WorkerEnded as ended:  # the next score has another one
            reply = {"error": f"the scoring process ended {ended}"}
        step, self._current = self._current, None
        if "error" in reply:
            self.failed[step] = reply["error"]
        self._begin()
        return Scored(step, [self._result(fields) for fields in reply.get("results", ())], reply.get("error", ""))

    def close(self) -> None:
        """End the process immediately."""
        self._worker.close(FAREWELL)

    def _begin(self) -> None:
        """Send the next checkpoint if the process is idle."""
        if self._current is not None or not self._queue:
            return
        self._current = self._queue.popleft()
        folder = checkpoint.checkpoint_folder(self.run, self._current).resolve()
        self._worker.send({"folder": str(folder), "step": self._current})

    def _result(self, fields: dict[str, Any]) -> MetricResult:
        """The inverse of ``as_dict``."""
        kind = Accuracy if self.config.task == "classifier" else MetricResult
        return kind(**{name: value for name, value in fields.items() if name != "label"})
