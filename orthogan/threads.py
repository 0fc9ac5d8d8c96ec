"""The number of threads that compute on a CPU: fewer while other processes keep cores busy."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

import torch

from orthogan.io.threads import GIVEN, cores

WINDOW = 5.0  # seconds over which the load is measured
FREE = 0.5  # cores; less than this is no free core


class Usage(NamedTuple):
    """CPU time so far [s], ``free`` of the ``cores`` that this process may use, and ``own`` of this process."""

    free: float
    own: float
    cores: int


def usage() -> Usage | None:
    """Read the CPU times; None where the system does not tell them."""
    import psutil

    try:
        times = psutil.cpu_times(percpu=True)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        mine = [times[core] for core in allowed]
        own = os.times()
        free = sum(one.idle + getattr(one, "iowait", 0.0) for one in mine)
    except (OSError, IndexError, RuntimeError, psutil.Error):  # such as in a container without /proc/stat
        return None
    return Usage(free, own.user + own.system, len(mine))


def cores_left(before: Usage, after: Usage, passed: float, threads: int) -> float:
    """Cores that other processes leave to this one, which had ``threads`` threads for ``passed`` seconds.

    Where no core is free, everybody gets less than wanted. Threads wait actively, so the share that those of this
    process got is also that of the others, unless these have a lower priority and get little. At least half of the
    cores are left.
    """
    free, own = (after.free - before.free) / passed, (after.own - before.own) / passed
    needed = max(0.0, after.cores - free - own)
    if free < FREE:
        needed /= max(1e-3, min(1.0, own / threads))
    return max(after.cores - needed, after.cores / 2)


class ThreadCount:
    """A context that sets the number of threads of torch, and restores it at the end.

    All threads of an operation wait for the slowest one. If another process needs a core, the thread on that core is
    slow in every operation, and the whole process runs at a fraction of its speed. Fewer threads are then faster.
    Without a number, ``check`` follows the load: in each ``window`` it computes how many cores other processes need,
    and takes the remaining ones, at least half of all. It changes the number of threads when two windows agree.
    Rounding depends on the number of threads, so that a change also changes the last digits.

    The load is not followed with a fixed ``number``, or where ``OMP_NUM_THREADS`` is set.

    Args:
        number: a fixed number; None: one thread per core, and fewer while other processes are busy.
        follow: without a number, follow the load; False on a GPU or with several processes.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with ThreadCount(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """

    active: ClassVar[ThreadCount | None] = None  # the innermost one

    def __init__(
        self,
        number: int | None = None,
        *,
        follow: bool = True,
        window: float = WINDOW,
        read: Callable[[], Usage | None] = usage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number, self.window = number, window
        self._read, self._clock = read, clock
        chosen = any(os.environ.get(name) for name in GIVEN)
        self._follow = follow and number is None and not chosen
        self._outer: ThreadCount | None = None
        self._before = self._most = 1
        self._at, self._usage = 0.0, None
        self._wanted: int | None = None  # by the last window

    def __enter__(self) -> Self:
        self._outer, ThreadCount.active = ThreadCount.active, self
        self._before = torch.get_num_threads()
        # torch does not know the share of the cores that a container has
        self._most = min(self._before, cores()) if self._follow else self._before
        self._set(self.number or self._most)
        self._at, self._usage = self._clock(), self._read() if self._follow and self._most > 1 else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ThreadCount.active = self._outer
        self._set(self._before)

    def begin_with(self, number: int) -> None:
        """Begin with ``number`` threads, such as those of a run before it stopped, where the load is followed."""
        if self._follow:
            self._set(max(1, min(number, self._most)))

    def check(self) -> None:
        """Follow the load, if a window has passed; call it often. A change is reported on stderr."""
        if self._usage is None or (passed := self._clock() - self._at) < self.window:
            return
        before, self._at, self._usage = self._usage, self._clock(), self._read()
        if self._usage is None:
            return
        now, earlier = torch.get_num_threads(), self._wanted
        self._wanted = wanted = max(1, min(self._most, round(cores_left(before, self._usage, passed, now))))
        if earlier is None or (wanted - now) * (earlier - now) <= 0:  # one window may be an accident
            return
        # the smaller of the two changes
        number = max(wanted, earlier) if wanted < now else min(wanted, earlier)
        self._set(number)
        self._wanted = None
        reason = "other processes keep cores busy" if number < now else "more cores are free"
        from tqdm import tqdm

        tqdm.write(f"orthogan: using {number} threads instead of {now}, because {reason}", file=sys.stderr)

    @staticmethod
    def _set(number: int) -> None:
        if number != torch.get_num_threads():
            torch.set_num_threads(number)
