"""Compares the speed of training loops: each runs in a separate process, and only one works at a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from benchmarks.setting import Setting
from benchmarks.timing import Readings, load_average

ROOT = Path(__file__).absolute().parent.parent
LEAST = 2.0  # seconds
Contender = Mapping[str, Any]  # "kind", and the options of that kind (benchmarks.contender)


class AbsentError(Exception):
    """A contender cannot run here; the message gives the reason in one line."""


class Rival:
    """The process of one contender."""

    def __init__(self, contender: Contender, setting: Setting, log: Path, *, parts: bool = False) -> None:
        self.log = log
        self._errors: IO[str] = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contender"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # as in a terminal of its own: Linux divides the cores by session
        )
        self.say({"contender": dict(contender), "setting": asdict(setting), "parts": parts})

    def say(self, word: Mapping[str, Any]) -> None:
        """Send a request; ``hear`` returns the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(word) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # hear() reports the cause

    def hear(self) -> dict[str, Any]:
        """The answer; raises AbsentError if the contender gave up."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self.printed().splitlines()
            raise AbsentError(f"its process ended: {lines[-1] if lines else 'without a word'}")
        word = json.loads(line)
        if "absent" in word:
            raise AbsentError(word["absent"])
        return word

    def printed(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace").strip()[-3000:]

    def ask(self, word: Mapping[str, Any]) -> dict[str, Any]:
        """``say``, then ``hear``."""
        self.say(word)
        return self.hear()

    def close(self) -> None:
        """End the process; no more steps are requested."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@dataclass
class Race:
    """The results: measurements by name, further numbers of each contender, and the absent ones with reasons."""

    readings: Readings = field(default_factory=Readings)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    warm_up: dict[str, list[float]] = field(default_factory=dict)  # seconds per step
    parts: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    rss: dict[str, int] = field(default_factory=dict)  # bytes
    reserved: dict[str, int] = field(default_factory=dict)  # bytes, on CUDA
    absent: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)  # the last output of the absent contenders

    def leave(self, name: str, rival: Rival, error: AbsentError) -> None:
        """Remove a contender from the race."""
        self.absent[name], self.printed[name] = str(error), rival.printed()


@contextmanager
def started(
    contenders: Mapping[str, Contender], settings: Mapping[str, Setting], logs: Path, *, parts: bool = False
) -> Iterator[dict[str, Rival]]:
    """The processes by name, while they build their networks; all are ended at the end of the block."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        found = {}
        for name, contender in contenders.items():
            found[name] = Rival(contender, settings[name], logs / f"{name.replace(' ', '-')}.log", parts=parts)
            stack.callback(found[name].close)
        yield found


def race(
    contenders: Mapping[str, Contender],
    setting: Setting,
    *,
    rounds: int,
    steps: int | None,
    warm_up: int,
    logs: Path,
    title: str,
    parts: bool = False,
    least: float = LEAST,
) -> Race:
    """Warm up every contender, then measure each once per round; every second round runs in reverse order.

    Args:
        steps: steps per measurement; None: as many as take ``least`` seconds.
        warm_up: steps before the measurements; the last of them gives the time per step.
        logs: folder for the output of the contenders.
        parts: also time the updates of D and of G separately.
    """
    found = Race()
    settings = dict.fromkeys(contenders, setting)
    together = setting.device == "cuda"  # compiling needs only the CPU, and there are enough cores for all
    total = len(contenders) * (rounds + 1)
    with (
        tqdm(total=total, desc=title, dynamic_ncols=True) as bar,
        ExitStack() as stack,
    ):
        rivals: dict[str, Rival] = {}
        for group in [list(contenders)] if together else [[name] for name in contenders]:
            chosen = {name: contenders[name] for name in group}
            rivals |= stack.enter_context(started(chosen, settings, logs, parts=parts))
            _warm(rivals, group, warm_up, found, bar)
        taking_part = list(found.warm_up)
        for name in taking_part:
            if together:  # a contender that warmed up while others were running has no valid time per step
                found.warm_up[name].append(rivals[name].ask({"steps": 2})["seconds"])
            once = found.warm_up[name][-1]
            found.readings.repeats[name] = steps or max(1, math.ceil(least / once))
            found.readings.seconds[name], found.readings.peak[name], found.parts[name] = [], [], []
        for number in range(rounds):
            found.readings.load.append(load_average())
            for name in taking_part[::-1] if number % 2 else list(taking_part):
                bar.set_postfix_str(name)
                try:
                    _read(rivals[name], name, found)
                except AbsentError as error:  # for example, out of memory; incomplete rows are dropped
                    found.leave(name, rivals[name], error)
                    taking_part.remove(name)
                    del found.readings.seconds[name]
                bar.update()
        found.readings.load.append(load_average())
    return found


def _warm(rivals: Mapping[str, Rival], names: Sequence[str], steps: int, found: Race, bar: tqdm[Any]) -> None:
    seconds: dict[str, list[float]] = {}
    left = list(names)
    for turn in range(steps + 1):  # the first message only says that it is built
        for name in left if turn else ():
            rivals[name].say({"steps": 1})
        for name in list(left):
            bar.set_postfix_str(f"{name}, {'warm-up' if turn else 'building'}")
            try:
                word = rivals[name].hear()
            except AbsentError as error:
                found.leave(name, rivals[name], error)
                left.remove(name)
                continue
            if turn:
                seconds.setdefault(name, []).append(word["seconds"])
            else:
                found.facts[name] = word["ready"]
    found.warm_up |= {name: seconds[name] for name in left}
    bar.update(len(names))


def _read(rival: Rival, name: str, found: Race) -> None:
    word = rival.ask({"steps": found.readings.repeats[name]})
    found.readings.seconds[name].append(word["seconds"])
    found.readings.peak[name].append(word.get("allocated", word["rss"]))
    found.parts[name].append(word["parts"])
    found.rss[name] = word["rss"]
    if "reserved" in word:
        found.reserved[name] = max(found.reserved.get(name, 0), word["reserved"])
