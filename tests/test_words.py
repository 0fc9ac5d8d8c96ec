"""A number agrees with its noun in every message that has one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from orthogan.errors import UserError
from orthogan.latent import Directions
from orthogan.models.codes import Codes
from orthogan.words import counted, there_are
from tests.fixtures.runs import ROOT


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(n, "row label") for n in (0, 1, 2, 12_000)] == [
        "0 row labels",
        "1 row label",
        "2 row labels",
        "12,000 row labels",
    ]
    assert [there_are(n, "step") for n in (1, 3)] == ["there is 1 step", "there are 3 steps"]


def test_messages_about_one_thing() -> None:
    one = Directions(np.eye(1, 4), "native")
    assert repr(one).startswith("<1 direction in")
    with pytest.raises(UserError, match=r"dims \[3\]: there is 1 direction, 0 to 0"):
        one.select([3])
    with pytest.raises(ValueError, match="1 label for 2 codes"):
        Codes(4, continuous=2, labels=("a",))


def test_no_message_builds_the_plural_itself() -> None:
    pattern = re.compile(r"""\{'s' \* \(|"s" \* \(""")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "orthogan").rglob("*.py"))
        if path.name != "words.py" and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
