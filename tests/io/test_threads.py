"""The number of threads of processes that run side by side."""

from __future__ import annotations

import pytest

from orthogan.io import threads
from orthogan.io.threads import GIVEN, threads_per_process


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize(
    ("given", "processes", "expected"),
    [(None, 1, 8), (None, 3, 2), (None, 20, 1), ("", 2, 4), ("3", 1, 3), ("3", 8, 3), ("4,2", 1, 4), ("many", 2, 4)],
)
def test_a_number_of_the_user_counts_else_a_share_of_the_cores(
    given: str | None, processes: int, expected: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    for one in GIVEN:
        monkeypatch.delenv(one, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    assert threads_per_process(processes) == expected


def test_omp_num_threads_comes_first_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_process(2) == 3
