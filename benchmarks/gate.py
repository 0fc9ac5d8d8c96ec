"""What a contender's training loop passes before every step: it waits there for its turn, and is timed.

A contender runs in a process of its own and may be anybody's loop, so the clock sits where a step begins; whatever a
loop does between two steps (averages, logs, fetching a batch) is in its time. Words are JSON, one object a line:
``{"steps": n}`` asks for a reading, ``{"score": {...}}`` for the Fréchet distance of the generator; the end of the
input ends the process.
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
    """Nobody asks for further steps (not an Exception: no loop of anyone's shall swallow it)."""


class Channel:
    """JSON lines with the process that started this one; prints of others go to stderr from now on."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source, self._sink = source, sink

    @classmethod
    def standard(cls) -> Channel:
        """Over stdin and what stdout was."""
        sink = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(sys.stdin, sink)

    def hear(self) -> dict[str, Any]:
        """The next word; raises Finished at the end."""
        line = self._source.readline()
        if not line:
            raise Finished
        return json.loads(line)

    def say(self, word: dict[str, Any]) -> None:
        """Send a word."""
        self._sink.write(json.dumps(word) + "\n")
        self._sink.flush()


class Gate:
    """Call it before each step; it returns when the step may begin.

    Args:
        parts: also time what lies between calls of ``part`` (it then waits for the device at each).
    """

    def __init__(self, channel: Channel, device: torch.device, *, parts: bool = False) -> None:
        self.channel, self.device = channel, device
        self.facts: dict[str, Any] = {}  # what to tell of the contender once it is built
        self.score: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self._timed = parts
        self._begun = False
        self._asked = self._done = 0
        self._start = self._mark = 0.0
        self._parts: dict[str, float] = {}

    def __call__(self) -> None:
        """One step is over and the next one may begin; raises Finished when none is wanted."""
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
        """What was done since the last call, or since the step began, is counted under ``name``."""
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
    """The most memory that this process ever held [bytes]; without its children."""
    import resource  # not on Windows

    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    # Linux hands down the parent's maximum in getrusage, so that a small child of a large process looks large
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 2**10
