"""Stop a run again and again at random moments, then let it come to its end: it must equal the uninterrupted one.

The moments: any time; just when a temporary file or folder appears (a checkpoint, a log, a picture is being written
or deleted), for the first to sixth time, and up to 0.1 s after it.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from tests.faults import contents
from tests.faults.child import ALLOWED, Child
from tests.faults.findings import Findings
from tests.faults.runs import PATIENCE, SETTINGS, Setting

MOST = 8  # stops of one run


def one_process(index: int, seed: int, out: Path) -> Findings:
    """``kill -9``."""
    return _stop_often(SETTINGS[("plain", "scored", "background", "streamed")[index % 4]], seed, out, (signal.SIGKILL,))


def two_processes(index: int, seed: int, out: Path) -> Findings:
    """``kill -9`` of one of two processes, or of both; the survivor ends by itself."""
    return _stop_often(SETTINGS["two"], seed, out, (signal.SIGKILL,))


def stops(index: int, seed: int, out: Path) -> Findings:
    """Ctrl-C and SIGTERM."""
    setting = SETTINGS[("plain", "background", "two")[index % 3]]
    return _stop_often(setting, seed, out, (signal.SIGINT, signal.SIGTERM))


def _stop_often(setting: Setting, seed: int, out: Path, signals: tuple[int, ...]) -> Findings:
    draw, found = random.Random(seed), Findings()
    reference = setting.reference(out)
    right = contents.checkpoints(reference)
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run, newest = folder / "run", -1
    for attempt in range(MOST + 1):
        children = setting.start(folder)
        number = draw.choice(signals)
        if attempt < MOST and newest < setting.steps and _moment(children, run, draw):
            found.tried += 1
            # torchrun and a terminal signal all processes; kill -9 may hit any of them
            several = number != signal.SIGKILL or draw.random() < 0.4
            victims = children if several else [draw.choice(children)]
            for child in victims:
                child.signal(number)
        for child in children:
            child.wait(PATIENCE)
        for child in children:
            # a process whose import was interrupted ends as Python does; here everything is imported
            allowed = (*ALLOWED, -signal.SIGKILL) if number == signal.SIGKILL else ALLOWED
            found.ended(child, f"{setting.name}, {signal.Signals(number).name}", allowed)
            if left := _lasting(child):
                found.add("other", f"{setting.name}: processes left: {left}")
            child.output.write_text("")
        have = contents.checkpoints(run)
        contents.checkpoints_agree(have, right, found)
        if max(have, default=-1) < newest:
            found.add("lost", f"{setting.name}: the newest checkpoint went back from {newest} to {max(have)}")
        newest = max(newest, *have, -1)
        if all(child.code == 0 for child in children):
            contents.compare(run, reference, setting.steps, found)
            return found
        if found.counts:
            return found
    found.add("lost", f"{setting.name}: does not come to its end")
    return found


def _moment(children: list[Child], run: Path, draw: random.Random) -> bool:
    """Wait for the moment to act; False where a process ended before it."""
    kind = draw.choice(("time", "temporary", "temporary"))
    skip = draw.randrange(6)
    delay = draw.choice((0.0, 0.0, draw.uniform(0, 0.005), draw.uniform(0, 0.03), draw.uniform(0, 0.1)))
    end = time.monotonic() + (draw.uniform(0, 3.0) if kind == "time" else PATIENCE)
    seen = _temporaries(run)
    while not any(child.ended() for child in children):
        if time.monotonic() > end:
            return True
        if kind == "temporary":
            now = _temporaries(run)
            if now - seen:
                if not skip:
                    time.sleep(delay)
                    return not any(child.ended() for child in children)
                skip -= 1
            seen = now
        time.sleep(0.0005)
    return False


def _temporaries(run: Path) -> set[str]:
    """Names of what is being written or deleted."""
    found: set[str] = set()
    for folder in (run, run / "checkpoints"):
        try:
            found |= {f"{folder.name}/{entry.name}" for entry in folder.iterdir() if entry.name.startswith(".")}
        except OSError:
            continue
    return found


def _lasting(child: Child, seconds: float = 30.0) -> list[int]:
    """Processes that the child started and that outlive it by more than ``seconds``; they are ended."""
    end = time.monotonic() + seconds
    while (left := child.others()) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        child.kill()
    return left
