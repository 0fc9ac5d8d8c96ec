"""What the process does with memory it has freed, and which errors say that there is too little of it."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
STEP = 64 << 20  # bytes that are asked of the system at a time, at least


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next ones, instead of giving large ones back to the system at once.

    A training step on a CPU frees and wants the same few gigabytes again and again. Each time the system would hand
    over fresh pages and clear them first: on two cores that was a seventh of a step. The process then keeps what its
    largest moment took (a seventh more than before, for blocks find their place less neatly) until it ends.

    Returns whether it could be done: it is of glibc, on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        # no blocks of their own from the system, and nothing cut off the end of the heap
        return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1), mallopt(TOP_PAD, STEP)])
    except (AttributeError, OSError):  # another C library, such as musl
        return False


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that something is too large for the memory, of the machine or of the GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("can't allocate memory", "not enough memory", "calculation overflowed", "multiplication overflow")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
