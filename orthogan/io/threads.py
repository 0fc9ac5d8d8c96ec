"""How many CPU cores there are to use, and a ``map`` over a few threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from orthogan.arguments import is_whole_number

A = TypeVar("A")
B = TypeVar("B")


CGROUP = Path("/sys/fs/cgroup")  # of a container
GIVEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # a user who sets one of these has chosen a number


def cores() -> int:
    """CPU cores that this process may use, at most the limit of its container, rounded up."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(found, _limit(CGROUP))))


def threads_per_process(processes: int) -> int:
    """Threads of each of ``processes`` side by side: the first number in ``GIVEN``, else a share of the cores."""
    for name in GIVEN:
        given = os.environ.get(name, "").partition(",")[0].strip()  # a list has one number per nested level
        if is_whole_number(given) and int(given):
            return int(given)
    return max(1, cores() // processes)


def _limit(folder: Path) -> float:
    """CPU time per time that the control group ``folder`` may use (version 2, then 1); infinity without a limit."""
    try:
        if (file := folder / "cpu.max").is_file():
            quota, period = file.read_text().split()
        else:
            quota, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such files, or "max"
        return math.inf


def in_threads(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Apply ``map`` over a few threads, in order, with a limited number of waiting results.

    For work that releases the global interpreter lock, such as reading, hashing, and decoding with Pillow. For small
    pieces of work, switching threads costs more than it gains, and a plain ``map`` is faster.
    """
    threads = min(16, cores())
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="orthogan") as pool:
        # Chunks limit the memory and cost little: no thread waits longer than for one item.
        while part := list(islice(source, 64 * threads)):
            yield from pool.map(work, part)
