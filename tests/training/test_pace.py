"""The estimate of a run's time, on a clock of the test's own."""

from __future__ import annotations

import pytest

from orthogan.training import pace as module
from orthogan.training.pace import PATIENCE, Pace, remaining


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "perf_counter", clock)
    return clock


def steps(pace: Pace, clock: Clock, seconds: list[float]) -> list[bool]:
    told = []
    for each in seconds:
        clock.now += each
        told.append(pace.step())
    return told


def test_a_slow_first_score_and_first_step_do_not_spoil_the_estimate(clock: Clock) -> None:
    pace = Pace(100, {"score": 0})
    with pace.event("score"):
        clock.now += 5000.0
    assert steps(pace, clock, [60.0, 1.0, 1.0, 1.0, 1.0]) == [False] * 4 + [True]
    assert pace.seconds_per_step == pytest.approx(1.0)
    assert pace.left(5) == pytest.approx(95.0)


def test_what_is_done_between_steps_counts_once_per_event_to_come(clock: Clock) -> None:
    pace = Pace(100, {"score": 30, "picture": 50})
    assert pace.wants_guess("score", 0)
    pace.guesses["score"] = 7.0
    steps(pace, clock, [1.0] * 29)
    assert pace.left(29) == pytest.approx(71 + 4 * 7.0)  # after steps 30, 60, 90 and 100
    with pace.event("score"):
        clock.now += 40.0  # the first one also reads the reference
    assert not pace.wants_guess("score", 30)
    assert pace.left(30) == pytest.approx(70 + 3 * 40.0)
    with pace.event("score"):
        clock.now += 10.0
    with pace.event("picture"):
        clock.now += 2.0
    steps(pace, clock, [1.0])
    assert pace.left(60) == pytest.approx(40 + 2 * 10.0 + 2.0)
    assert pace.left(100) == 0.0


def test_lazy_phases_are_averaged(clock: Clock) -> None:
    pace = Pace(1000, {}, period=16)
    told = steps(pace, clock, [9.0 if step % 16 == 0 else 1.0 for step in range(40)])
    assert told.index(True) == 17 - 1  # of 17 steps the first warms up, and the others have one lazy phase
    assert told.count(True) == 1
    pace = Pace(1000, {}, period=16)
    steps(pace, clock, [9.0 if step % 16 == 0 else 1.0 for step in range(18)])
    assert pace.seconds_per_step == pytest.approx(24 / 16)


def test_slow_steps_are_told_before_a_period_is_over(clock: Clock) -> None:
    pace = Pace(1000, {}, period=160)
    assert steps(pace, clock, [PATIENCE / 2] * 6) == [False] * 4 + [True, False]


def test_the_estimate_follows_a_machine_whose_load_changes(clock: Clock) -> None:
    pace = Pace(10_000, {})
    steps(pace, clock, [1.0] * 300 + [3.0] * 300)
    assert pace.seconds_per_step == pytest.approx(3.0)


def test_events_are_counted_up_to_the_end() -> None:
    for every in (1, 7, 10):
        for step in range(31):
            due = [s for s in range(step + 1, 31) if s % every == 0 or s == 30]
            assert remaining(step, 30, 0.0, {"a": every}, {"a": 1.0}) == len(due)
    assert remaining(3, 30, 0.0, {"a": 0}, {"a": 1.0}) == 0.0
