"""Text of pictures: cut to the width that there is."""

from __future__ import annotations

import pytest

from orthogan.drawing.text import ELLIPSIS, Font, fit


@pytest.mark.parametrize("letter", ["x", "é", "W", "i"])
def test_the_longest_beginning_that_fits_is_shown(letter: str) -> None:
    font = Font(12)
    for width in (0, 20, 100, 333):
        cut = fit(letter * 200, font, width)
        assert cut.endswith(ELLIPSIS)
        count = len(cut) - len(ELLIPSIS)
        assert count == 0 or font.width(cut) <= width
        assert font.width(letter * (count + 1) + ELLIPSIS) > width
    assert fit(f" {letter}\n{letter} ", font, 333) == f"{letter} {letter}"


def test_a_very_long_name_is_measured_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    real = Font.width
    monkeypatch.setattr(Font, "width", lambda self, text: measured.append(text) or real(self, text))
    assert len(fit("x" * 100_000, Font(12), 100)) < 100
    assert len(measured) < 25  # by bisection
