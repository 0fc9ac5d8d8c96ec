"""The table of runs beside other work, on processes that answer at once, and its processes' environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import side_by_side
from benchmarks.setting import Setting
from orthogan.io.threads import cores


class Clock:
    """Time that passes only while steps run: faster alone than beside others."""

    def __init__(self) -> None:
        self.now, self.busy = 0.0, False
        self.asked: list[Stub] = []


class Stub:
    """A process with steps of 1 s alone, 2.5 s beside another process, and 2 s beside another run."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.built = clock, False

    def say(self, word: Mapping[str, Any]) -> None:
        self.steps = word["steps"]
        self.clock.asked.append(self)

    def hear(self) -> dict[str, Any]:
        if not self.built:
            self.built = True
            return {"ready": {}}
        if self.clock.asked[0] is self:
            each = 2.0 if len(self.clock.asked) == 2 else 2.5 if self.clock.busy else 1.0
            self.clock.now += each * self.steps
        if self.clock.asked[-1] is self:
            self.clock.asked.clear()
        return {"seconds": 1.0}


def test_speeds_are_compared_with_those_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), []

    @contextmanager
    def started(pair: Mapping[str, Any], *_: object) -> Iterator[dict[str, Stub]]:
        seen.append({name: os.environ.get(name) for name in side_by_side.SETTINGS})
        yield {name: Stub(clock) for name in pair}

    @contextmanager
    def busy() -> Iterator[None]:
        clock.busy = True
        yield
        clock.busy = False

    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(side_by_side, "started", started)
    monkeypatch.setattr(side_by_side, "busy_process", busy)
    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: clock.now)
    found = side_by_side.side_by_side({"kind": "orthogan"}, Setting(), rounds=2, steps=4, warm_up=1, logs=tmp_path)
    assert [target["median"] for target in found["targets"]] == [1.0, 0.4]
    assert all(target["met"] for target in found["targets"])
    assert "| orthogan | 1.00 (1.00–1.00) | 0.40 (0.40–0.40) | 1.00 (1.00–1.00) | 1,000 |" in found["text"]
    all_cores = {"OMP_NUM_THREADS": str(cores())}
    ways = [{}, all_cores, all_cores | {"GOMP_SPINCOUNT": "3000"}, all_cores | {"OMP_WAIT_POLICY": "passive"}]
    absent = dict.fromkeys(side_by_side.SETTINGS)
    assert seen == [absent | way for way in (*ways, *ways[::-1])]
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_the_steps_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: clock.now)
    rivals: list[Any] = [Stub(clock), Stub(clock)]
    for rival in rivals:
        rival.hear()
    assert side_by_side.at_once(rivals[:1], 3) == 1.0
    assert side_by_side.at_once(rivals, 3) == 1.0


def test_the_neighbor_is_at_work_and_ends() -> None:
    with side_by_side.busy_process() as process:
        assert process.poll() is None
    assert process.poll() is not None
