"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from orthogan import progress
from orthogan.progress import Lines, duration, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3599, "1 h"), (86_400 * 3, "3 d")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_no_terminal_gets_lines_and_none_of_the_characters_of_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bar = progress_bar(range(8), "features", unit=" img")
    assert isinstance(bar, Lines)
    seen = []
    for item in bar:
        seen.append(item)
        clock[0] += 12.0
    assert seen == list(range(8))
    # a line at most every 30 s: at 36 s, when three are done, and at 72 s
    assert capsys.readouterr().err.splitlines() == [
        "features: 3 of 8 img (38%), about 1 min left",
        "features: 6 of 8 img (75%), about 24 s left",
    ]


def test_a_terminal_gets_a_bar_unless_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(total=4, desc="features", mininterval=0) as bar:
        bar.update(2)
    assert "features:  50%" in terminal.getvalue()
    before = terminal.getvalue()
    assert list(progress_bar(range(3), disable=True)) == [0, 1, 2]
    assert terminal.getvalue() == before
