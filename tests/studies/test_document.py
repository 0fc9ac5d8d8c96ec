"""Names of files: readable, and of any script."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orthogan.studies.document import slug


def test_letters_lose_their_accents_and_nothing_else() -> None:
    assert slug("true", "Fréchet distance") == "true-frechet-distance"
    assert slug("|D(x) - D(y)| / |x - y|", "99%") == "d-x-d-y-x-y-99"
    assert slug("距离") != slug("训练") != ""


@given(st.text())
def test_a_name_is_safe_and_stays_as_it_is(words: str) -> None:
    name = slug(words)
    assert not re.search(r"[/\\\s.]", name)
    assert slug(name) == name
