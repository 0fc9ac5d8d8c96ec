"""A penalty's weight over a run."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.penalties import SRIP_EPOCHS, SRIP_SCHEDULE, SRIP_WEIGHT, Schedule


def test_each_value_holds_until_the_next_point() -> None:
    schedule = Schedule([(0, 1e-2), (20, 1e-3), (50, 1e-4)])
    assert [schedule(p) for p in (0, 19.999, 20, 49, 50, 1e9)] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]


@given(st.lists(st.floats(0.01, 100), max_size=6, unique=True), st.floats(0, 200))
def test_the_value_is_that_of_the_last_point_passed(later: list[float], position: float) -> None:
    points = [(p, float(i)) for i, p in enumerate([0.0, *sorted(later)])]
    expected = 0.0
    for at, value in points:
        if at <= position:
            expected = value
    assert Schedule(points)(position) == expected


def test_the_published_srip_schedule() -> None:
    # Bansal et al.'s Wide-ResNet code, as absolute weights at the ends of epochs
    wanted = {0: 1e-2, 19: 1e-2, 20: 1e-5, 50: 1e-6, 70: 1e-8, 120: 0.0, 199: 0.0}
    assert {epoch: SRIP_WEIGHT * SRIP_SCHEDULE(epoch) for epoch in wanted} == pytest.approx(wanted)
    share = SRIP_SCHEDULE.stretched(1 / SRIP_EPOCHS)
    assert share(0.099) == 1.0
    assert share(0.3) == 1e-4
    assert share(0.61) == 0.0


def test_stretching_moves_the_positions_only() -> None:
    assert Schedule([(0, 1), (20, 0.5)]).stretched(390) == Schedule(((0, 1), (7800, 0.5)))
    assert copy.deepcopy(SRIP_SCHEDULE) == SRIP_SCHEDULE


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "the first must be at position 0"),
        ([(1, 1)], "the first must be at position 0"),
        ([(0, 1), (5, 1), (3, 1)], r"position 3\.0 must come after 5\.0; sort them"),
        ([(0, 1), (0, 2)], r"position 0\.0 must come after 0\.0"),
        ([(0, 1), (float("nan"), 2)], "position nan"),
        ([(0, -1)], r"value -1\.0 at 0\.0"),
        ([(0, float("inf"))], "value inf"),
    ],
)
def test_bad_points_are_refused(points: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(points)


def test_bad_positions_and_factors_are_refused() -> None:
    with pytest.raises(ValueError, match="position -1"):
        SRIP_SCHEDULE(-1)
    with pytest.raises(ValueError, match="factor is 0"):
        SRIP_SCHEDULE.stretched(0)
