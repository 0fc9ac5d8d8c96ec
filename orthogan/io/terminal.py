"""What is printed on a terminal: names of files, which anybody may have chosen, cannot command it."""

from __future__ import annotations

import re
from typing import Any, TextIO

# control characters but for tab and line ends, and those that turn the direction of writing
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MOVES = re.compile(r"(?:\r|\n|\x1b\[A)*")  # of progress bars, which write them alone


class Plain:
    """A text stream in which control characters are escaped: ``\\x1b`` instead of what it does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; returns its length."""
        if not _MOVES.fullmatch(text):
            text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
