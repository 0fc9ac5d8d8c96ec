"""The gate before every step of a contender's training loop: the loop waits there for its turn, and is timed.

A contender runs in a separate process and may be any training loop, so the time is measured from the start of one step
to the start of the next. It includes everything that a loop does between two steps (averages, logs, fetching a batch).
Messages are JSON, one object per line: ``{"steps": n}`` requests a measurement, ``{"score": {...}}`` the Fréchet
distance of the generator. The process ends at the end of the input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.timing import synchronize


class Finished(BaseException):
    """No more steps are requested (not an Exception, so that a training loop cannot catch it by accident)."""


class Channel:
    """Exchanges JSON lines with the parent process; all other output goes to stderr."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source, self._sink = source, sink

    @classmethod
    def standard(cls) -> Channel:
        """Use stdin and the original stdout."""
        sink = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(sys.stdin, sink)

    def hear(self) -> dict[str, Any]:
        """The next message; raises Finished at the end of the input."""
        line = self._source.readline()
        if not line:
            raise Finished
        return json.loads(line)

    def say(self, word: dict[str, Any]) -> None:
        """Send a message."""
        self._sink.write(json.dumps(word) + "\n")
        self._sink.flush()


class Gate:
    """Call it before each step; it returns when the step may begin.

    Args:
        parts: also time the parts between calls of ``part`` (each call then waits for the device).
    """

    def __init__(self, channel: Channel, device: torch.device, *, parts: bool = False) -> None:
        self.channel, self.device = channel, device
        self.facts: dict[str, Any] = {}  # facts about the contender, sent after it is built
        self.score: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self._timed = parts
        self._begun = False
        self._asked = self._done = 0
        self._start = self._mark = 0.0
        self._parts: dict[str, float] = {}

    def __call__(self) -> None:
        """End one step and wait for the next; raises Finished if no more steps are requested."""
        if not self._begun:
            self._begun = True
            self.channel.say({"ready": self.facts | {"rss built": peak_rss()}})
        else:
            self._done += 1
            if self._done < self._asked:
                self._mark = time.perf_counter()
                return
            self._answer()
        self._wait()

    def part(self, name: str) -> None:
        """Count the time since the last call, or since the start of the step, under ``name``."""
        if not self._timed:
            return
        synchronize(self.device)
        now = time.perf_counter()
        self._parts[name] = self._parts.get(name, 0.0) + now - self._mark
        self._mark = now

    def _answer(self) -> None:
        synchronize(self.device)
        seconds = time.perf_counter() - self._start
        parts = {name: value / self._done for name, value in self._parts.items()}
        word: dict[str, Any] = {"seconds": seconds / self._done, "parts": parts, "rss": peak_rss()}
        if self.device.type == "cuda":
            word["allocated"] = torch.cuda.max_memory_allocated(self.device)
            word["reserved"] = torch.cuda.max_memory_reserved(self.device)
        self.channel.say(word)

    def _wait(self) -> None:
        while True:
            word = self.channel.hear()
            if "steps" in word:
                break
            assert self.score is not None
            self.channel.say(self.score(word["score"]))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._asked, self._done, self._parts = word["steps"], 0, {}
        synchronize(self.device)
        self._start = self._mark = time.perf_counter()


def peak_rss() -> int:
    """The peak memory of this process [bytes], without its children."""
    import resource  # not on Windows

    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    # on Linux, getrusage includes the parent's maximum, so that a small child of a large process looks large
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 2**10
