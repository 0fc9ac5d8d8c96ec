"""How long a run takes: from the steps, scores, pictures and checkpoints that it has made so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

WARM_UP = 2  # steps that are not timed: kernels are chosen and compiled, and caches fill
LEAST = 3  # steps that are timed before the first estimate, or more, so that each lazy phase is among them
PATIENCE = 20.0  # after this many seconds of timed steps the first estimate does not wait for lazy phases
WINDOW = 256  # the newest steps that an estimate uses, so that it follows a machine whose load changes


class Pace:
    """Durations of the steps, and of what is done between them, whose mean and number to come give the time left.

    The time between steps is measured by kind and left out of the steps, so that a score made before the first step
    does not slow down the estimate of all steps. A kind that has not happened yet counts with the ``guesses``.

    Args:
        steps: of the whole run.
        every: steps between two events of each kind ("score", "picture", …); 0 = never. Each also happens at the end.
        period: steps after which the phases of a step repeat.
        guesses: seconds that an event of a kind takes, for those that are known beforehand.
    """

    def __init__(
        self,
        steps: int,
        every: Mapping[str, int],
        *,
        period: int = 1,
        guesses: Mapping[str, float] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.steps, self.every = steps, dict(every)
        self.guesses = dict(guesses or {})
        self._least = max(LEAST, period)
        self._cuda = device is not None and device.type == "cuda"
        self._first: dict[str, float] = {}
        self._later: dict[str, tuple[float, int]] = {}  # of all events of a kind but the first: seconds, count
        self._between = 0.0
        self._marks: deque[float] = deque(maxlen=WINDOW + 1)
        self._seen = 0

    @contextmanager
    def event(self, kind: str) -> Iterator[None]:
        """The block is an event of ``kind``."""
        self._wait()
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self._between += took
        if kind in self._first:
            seconds, count = self._later.get(kind, (0.0, 0))
            self._later[kind] = seconds + took, count + 1
        else:
            self._first[kind] = took

    def step(self) -> bool:
        """A step is done. True once, when the first estimate can be made."""
        self._seen += 1
        if self._seen < WARM_UP:
            return False
        timed = self._seen - WARM_UP
        if timed in (0, self._least):
            self._wait()
        self._marks.append(time.perf_counter() - self._between)
        return timed == self._least or (LEAST <= timed < self._least and self._patience_ends())

    def wants_guess(self, kind: str, step: int) -> bool:
        """Whether an event of ``kind`` is to come, none was made yet, and steps enough follow ``step`` to tell."""
        return bool(self.every[kind]) and kind not in self._first and self.steps - step > WARM_UP + self._least

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the newest steps; None before there is one."""
        if len(self._marks) < 2:
            return None
        return (self._marks[-1] - self._marks[0]) / (len(self._marks) - 1)

    def left(self, step: int) -> float | None:
        """Seconds from the end of ``step`` to the end of the run; None before a step was timed."""
        each = self.seconds_per_step
        return None if each is None else remaining(step, self.steps, each, self.every, self.guesses | self._means())

    def _means(self) -> dict[str, float]:
        """Of each kind; the first event is left out where there are others, for it reads files and fills caches."""
        return self._first | {kind: seconds / count for kind, (seconds, count) in self._later.items()}

    def _patience_ends(self) -> bool:
        took = self._marks[-1] - self._marks[0]
        if took < PATIENCE:
            return False
        self._least = self._seen - WARM_UP
        return True

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def remaining(
    step: int, steps: int, seconds_per_step: float, every: Mapping[str, int], seconds: Mapping[str, float]
) -> float:
    """Seconds from the end of ``step`` to the end of a run of ``steps``.

    Args:
        every: as of ``Pace``.
        seconds: that an event of each kind takes; those without count 0.

    Example:
        >>> remaining(100, 1000, 0.5, {"score": 400}, {"score": 60.0})  # after steps 400, 800 and 1000
        630.0
    """
    total = (steps - step) * seconds_per_step
    for kind, interval in every.items():
        if interval and step < steps:
            count = steps // interval - step // interval + (steps % interval != 0)
            total += count * seconds.get(kind, 0.0)
    return total
