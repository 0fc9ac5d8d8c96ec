"""The table of start-up times, on commands that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import starts


def test_each_line_is_compared_with_the_import_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def cpu_time(words: list[str], folder: str) -> float:
        calls.append(words)
        return 2.0 if "-c" in words else 3.0

    monkeypatch.setattr(starts, "cpu_time", cpu_time)
    found = starts.starts(2)
    assert len(calls) == 3 * (1 + len(starts.LINES))
    assert not any("MODEL" in word for words in calls for word in words)
    met = {target["target"].split(",")[0]: target["met"] for target in found["targets"]}
    assert met["orthogan sample MODEL --seeds 0-3"]
    assert not met["orthogan --help"]
    assert all(target["median"] == 1.5 for target in found["targets"])
    assert "| orthogan --help | 1.50 | 1.50–1.50 | 3,000 |" in found["text"]


def test_the_time_of_a_process_is_its_own(tmp_path: Path) -> None:
    assert starts.cpu_time(["true"], str(tmp_path)) >= 0
