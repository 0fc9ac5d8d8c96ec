"""Handling of freed memory, peak memory, and detection of out-of-memory errors."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
STEP = 64 << 20  # smallest number of bytes requested from the system at a time


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for reuse, instead of returning large ones to the system immediately.

    A training step on a CPU frees and allocates the same few gigabytes again and again. Each time the system would
    provide and clear fresh pages: on two cores that took a seventh of a step. In exchange, the process keeps its
    peak memory (a seventh more than before, because of fragmentation) until it ends.

    Returns whether this is possible, which requires glibc on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        # no separate mappings, and no trimming of the heap
        return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1), mallopt(TOP_PAD, STEP)])
    except (AttributeError, OSError):  # another C library, such as musl
        return False


def peak_memory() -> float:
    """Return the peak memory of this process so far [MiB], without that of a GPU."""
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` reports that something does not fit into the memory of the machine or the GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("can't allocate memory", "not enough memory", "calculation overflowed", "multiplication overflow")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
