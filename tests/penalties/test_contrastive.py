"""The schedule of the gap between the codes of a pair."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orthogan.penalties.contrastive import ContrastiveConfig


def test_the_gap_falls_to_zero_in_equal_steps() -> None:
    one = ContrastiveConfig(weight=1, start=0.5, gap=1.9, gap_until=0.85)  # as published for 3D teapots
    assert [one.gap_at(share) for share in (0.5, 0.8499, 0.85, 1.0)] == [1.9, 1.9, 0.0, 0.0]
    many = ContrastiveConfig(weight=1, gap=1.2, gap_until=0.6, gap_steps=3)
    assert [round(many.gap_at(share), 6) for share in (0.0, 0.19, 0.2, 0.4, 0.6, 0.9)] == [1.2, 1.2, 0.8, 0.4, 0.0, 0.0]
    assert ContrastiveConfig(weight=1).gap_at(0.3) == 0


def test_a_gap_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"gap_until: 0\.2 must be after start = 0\.5"):
        ContrastiveConfig(start=0.5, gap=1.0, gap_until=0.2)
