"""Training beside other work on the same cores: ``python -m benchmarks.run --tables side-by-side``.

orthogan chooses the number of its threads by itself. The other ways have one thread per core, which wait for each other
in different ways. Each has two training processes. In each round, the first runs alone, then both run at the same time,
then the first runs beside a process that keeps one core busy; each time until orthogan has seen the load, and then for
the measurement. The table has seconds per step; two runs side by side count as one that makes both their steps.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import timing
from benchmarks.rivals import LEAST, Contender, Rival, started
from benchmarks.setting import Setting
from orthogan.io.threads import cores
from orthogan.threads import WINDOW

THREADS = "OMP_NUM_THREADS"
SETTINGS = (THREADS, "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
OURS = "orthogan"
WAYS: dict[str, dict[str, str]] = {  # the environment of the processes
    OURS: {},
    "one thread per core": {THREADS: str(cores())},
    "short spins": {THREADS: str(cores()), "GOMP_SPINCOUNT": "3000"},
    "no spins": {THREADS: str(cores()), "OMP_WAIT_POLICY": "passive"},
}
SETTLE = 3 * WINDOW + 1  # seconds until the number of threads fits the load
ALONE, BOTH, BUSY = "alone", "two side by side", "beside a busy process"
LEAST_OF_BOTH, LEAST_BESIDE = 0.85, 0.4

BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


@contextmanager
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps one core busy, as one of another terminal does, and ends with this one."""
    with subprocess.Popen([sys.executable, "-c", BUSY_LOOP], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set ``variables``, and no other that says how many threads there are or how they wait, for new processes."""
    before = dict(os.environ)
    for name in SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def at_once(rivals: Sequence[Rival], steps: int) -> float:
    """Seconds per step, over the steps of all ``rivals``, which run at the same time."""
    began = time.perf_counter()
    for rival in rivals:
        rival.say({"steps": steps})
    for rival in rivals:
        rival.hear()
    return (time.perf_counter() - began) / (steps * len(rivals))


def settle(rivals: Sequence[Rival]) -> None:
    """Let ``rivals`` run at the same time until each has seen the load."""
    end, steps = time.perf_counter() + SETTLE, 1
    while (began := time.perf_counter()) < end:
        at_once(rivals, steps)
        once = (time.perf_counter() - began) / steps
        steps = max(1, min(round(1.0 / once), 2 * steps))


def side_by_side(
    contender: Contender, setting: Setting, *, rounds: int, steps: int | None, warm_up: int, logs: Path
) -> dict[str, Any]:
    """The table.

    Args:
        steps: steps of each process per measurement; None: as many as take ``LEAST`` seconds alone.

    Raises:
        AbsentError: a process ended.
    """
    contender = dict(contender) | {"overrides": [*contender.get("overrides", ()), "training.threads=null"]}
    readings = timing.Readings()
    with tqdm(total=rounds * len(WAYS), desc="side by side", dynamic_ncols=True) as bar:
        for number in range(rounds):
            readings.load.append(timing.load_average())
            for way in list(WAYS)[::-1] if number % 2 else list(WAYS):
                with environment(WAYS[way]):
                    pair = {f"{way} {which}": contender for which in ("first", "second")}
                    with started(pair, dict.fromkeys(pair, setting), logs) as rivals:
                        _one_round(way, list(rivals.values()), readings, steps, warm_up)
                bar.update()
        readings.load.append(timing.load_average())
    targets = []
    for other, words, least in (
        (BOTH, f"images/s of two runs side by side over one alone: at least {LEAST_OF_BOTH}", LEAST_OF_BOTH),
        (BUSY, f"images/s beside a busy process over alone: at least {LEAST_BESIDE}", LEAST_BESIDE),
    ):
        spread = readings.ratio(f"{OURS}, {ALONE}", f"{OURS}, {other}")
        targets.append({"target": words, **asdict(spread), "met": spread.median >= least})
    return {
        "table": "side-by-side",
        "threads": cores(),
        "ways": WAYS,
        "contender": dict(contender),
        "setting": asdict(setting),
        "readings": asdict(readings),
        "absent": {},
        "targets": targets,
        "text": table(readings),
    }


def _one_round(way: str, rivals: list[Rival], readings: timing.Readings, steps: int | None, warm_up: int) -> None:
    """Measure one way of waiting; new processes each time, so that idle ones never disturb the others."""
    for rival in rivals:
        rival.hear()
    once = 0.0
    for rival in rivals:
        for _ in range(warm_up):
            once = at_once([rival], 1)
    count = steps or readings.repeats.get(way) or max(1, math.ceil(LEAST / once))
    readings.repeats[way] = count
    settle(rivals[:1])
    found = {ALONE: at_once(rivals[:1], count)}
    settle(rivals)
    found[BOTH] = at_once(rivals, count)
    with busy_process():
        settle(rivals[:1])
        found[BUSY] = at_once(rivals[:1], count)
    for name, seconds in found.items():
        readings.seconds.setdefault(f"{way}, {name}", []).append(seconds)


def table(readings: timing.Readings) -> str:
    """Markdown: per way of waiting, the speeds over that of the same way alone, and alone over the default."""
    lines = [["waiting", f"{BOTH} / {ALONE}", f"{BUSY} / {ALONE}", f"{ALONE} / {OURS} {ALONE}", "ms per step alone"]]
    lines.append(["---"] + ["---:"] * 4)
    for way in WAYS:
        alone = f"{way}, {ALONE}"
        pairs = [(alone, f"{way}, {BOTH}"), (alone, f"{way}, {BUSY}"), (f"{OURS}, {ALONE}", alone)]
        spreads = [readings.ratio(*pair) for pair in pairs]
        milliseconds = 1e3 * statistics.median(readings.seconds[alone])
        lines.append([way, *(one.in_words() for one in spreads), timing.digits(milliseconds)])
    return timing.joined(lines)
