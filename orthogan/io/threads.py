"""How many CPU cores there are to use, and A ``map`` over a few threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
