"""The number of threads follows the load, and no other setting is overruled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from orthogan.cli.main import following_load
from orthogan.io import threads as io_threads
from orthogan.io.threads import cores
from orthogan.progress import TICKS, progress_bar
from orthogan.threads import GIVEN, ThreadCount, Usage, usage


class Machine:
    """A machine of ``size`` cores on which this process keeps all its threads busy, beside ``others`` busy cores."""

    def __init__(self, size: int, others: float = 0.0) -> None:
        self.size, self.others = size, others
        self.now = self.free = self.own = 0.0

    def wait(self, seconds: float) -> None:
        """Let time pass; where the cores do not suffice, each process gets the share of its threads."""
        threads = torch.get_num_threads()
        share = min(1.0, self.size / (threads + self.others))
        self.own += share * threads * seconds
        self.free += (self.size - share * (threads + self.others)) * seconds
        self.now += seconds

    def count(self, number: int | None = None, *, follow: bool = True) -> ThreadCount:
        """A thread count on this machine, with windows of 5 s."""
        return ThreadCount(
            number,
            follow=follow,
            window=5.0,
            read=lambda: Usage(self.free, self.own, self.size),
            clock=lambda: self.now,
        )


@pytest.fixture(autouse=True)
def _eight_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("orthogan.threads.cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def windows(machine: Machine, threads: ThreadCount, count: int) -> list[int]:
    """The number of threads after each of ``count`` windows, with a check each second."""
    found = []
    for _ in range(count):
        for _ in range(5):
            machine.wait(1.0)
            threads.check()
        found.append(torch.get_num_threads())
    return found


@pytest.mark.parametrize(
    ("others", "expected"), [(0.0, 8), (0.3, 8), (1.0, 7), (3.0, 5), (4.0, 4), (8.0, 4), (100.0, 4)]
)
def test_threads_leave_cores_to_other_processes(others: float, expected: int) -> None:
    machine = Machine(8, others)
    with machine.count() as threads:
        assert windows(machine, threads, 6)[1:] == [expected] * 5


def test_a_process_that_gives_way_changes_nothing() -> None:
    machine = Machine(8)
    with machine.count() as threads:
        machine.others = 0.1  # what the scheduler leaves to a process of low priority
        assert windows(machine, threads, 4) == [8, 8, 8, 8]


def test_one_window_changes_nothing_and_all_threads_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(8)
    with machine.count() as threads:
        machine.others = 6.0  # for one window
        assert windows(machine, threads, 1) == [8]
        machine.others = 0.0
        assert windows(machine, threads, 2) == [8, 8]
        machine.others = 7.0
        assert windows(machine, threads, 2) == [8, 4]
        machine.others = 0.0
        assert windows(machine, threads, 2) == [4, 8]
    assert capsys.readouterr().err.splitlines() == [
        "orthogan: using 4 threads instead of 8, because other processes keep cores busy",
        "orthogan: using 8 threads instead of 4, because more cores are free",
    ]


def test_two_runs_share_the_cores_and_neither_starves() -> None:
    machine, other = Machine(8, 8.0), 8
    with machine.count() as threads:
        for _ in range(4):  # the other one does what this one does
            (other,) = windows(machine, threads, 1)
            machine.others = other
        assert torch.get_num_threads() == other == 4


def test_a_fixed_number_and_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(8, 8.0)
    with machine.count(3) as threads:
        threads.begin_with(5)
        assert windows(machine, threads, 3) == [3, 3, 3]
    assert torch.get_num_threads() == 8
    with machine.count(follow=False) as threads:
        assert windows(machine, threads, 3) == [8, 8, 8]
    for name in GIVEN:
        monkeypatch.setenv(name, "8")
        with machine.count() as threads:
            assert windows(machine, threads, 3) == [8, 8, 8]
        monkeypatch.delenv(name)


def test_the_innermost_count_is_in_charge() -> None:
    machine = Machine(8, 8.0)
    with machine.count() as outer:
        with machine.count(6) as inner:
            assert ThreadCount.active is inner
            assert windows(machine, inner, 3) == [6, 6, 6]
        assert ThreadCount.active is outer
        assert torch.get_num_threads() == 8
        assert windows(machine, outer, 3)[-1] == 4
    assert ThreadCount.active is None
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("manual", [False, True])
def test_a_command_follows_the_load_wherever_it_shows_progress(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, manual: bool
) -> None:
    machine, seen = Machine(8, 8.0), []
    read = {"read": lambda: Usage(machine.free, machine.own, machine.size), "clock": lambda: machine.now}
    monkeypatch.setattr("orthogan.threads.ThreadCount", partial(ThreadCount, **read))
    monkeypatch.setattr("orthogan.threads.ThreadCount.active", None, raising=False)
    monkeypatch.setattr("orthogan.progress.is_terminal", lambda: terminal)
    with following_load():
        bar = progress_bar(total=30) if manual else progress_bar(range(30))
        for _ in range(30) if manual else bar:
            machine.wait(1.0)
            if manual:
                bar.update()
            seen.append(torch.get_num_threads())
        bar.close()
    assert seen[0] == 8
    assert seen[-1] == 4
    assert torch.get_num_threads() == 8
    assert TICKS == []


def test_a_run_begins_with_the_threads_that_it_had() -> None:
    machine = Machine(8)
    with machine.count() as threads:
        threads.begin_with(2)
        assert windows(machine, threads, 2) == [2, 8]
        threads.begin_with(64)
        assert torch.get_num_threads() == 8


def test_without_cpu_times_nothing_changes() -> None:
    with ThreadCount(read=lambda: None, window=0.0) as threads:
        threads.check()
        assert torch.get_num_threads() == 8


def test_the_cpu_times_of_this_machine() -> None:
    before = usage()
    assert before is not None
    sum(i * i for i in range(1_000_000))
    after = usage()
    assert after is not None
    assert after.own > before.own
    assert after.free >= before.free


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limit: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(io_threads, "CGROUP", tmp_path)
    monkeypatch.setattr(io_threads.os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores() == limit


def test_a_container_with_two_cores_gets_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.threads.cores", lambda: 2)
    with ThreadCount():
        assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_run_beside_a_busy_process_has_fewer_threads(tmp_path: Path) -> None:
    if cores() < 2:
        pytest.skip("needs two cores")
    code = (
        "import torch\n"
        "from orthogan.threads import ThreadCount\n"
        "import time\n"
        "with ThreadCount(window=0.5) as threads:\n"
        "    most, end = torch.get_num_threads(), time.monotonic() + 60\n"
        "    x = torch.randn(256, 256)\n"
        "    while torch.get_num_threads() == most and time.monotonic() < end:\n"
        "        x @ x\n"
        "        threads.check()\n"
        "    print(most, torch.get_num_threads())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in GIVEN}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores())]
    try:
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
        )
    finally:
        for one in busy:
            one.kill()
            one.wait()
    most, fewer = map(int, out.stdout.split())
    assert 1 <= fewer < most
