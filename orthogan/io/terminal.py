"""Terminal output: aligned tables, and escaping of control characters in file names."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

# control characters except tab and line ends, and those that change the writing direction
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MOVES = re.compile(r"(?:\r|\n|\x1b\[A)*")  # used by progress bars, which write them separately


_GONE = (errno.EPIPE, errno.EIO)  # the pipe, or the terminal


class Plain:
    r"""A text stream that escapes control characters, such as ``\x1b``.

    If nobody reads it any more (``| head``, a closed terminal), the rest is dropped: a training must not end for this.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; returns its length."""
        if not _MOVES.fullmatch(text):
            text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
        with self._dropped():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._dropped():
            self._stream.flush()

    @contextmanager
    def _dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also for what is still in its buffer
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shell_word(path: str | os.PathLike[str]) -> str:
    """Return ``path`` as a word of a command, quoted where a shell needs it; never read as an option."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def text_table(rows: Sequence[Sequence[str]], align: str, head: Sequence[str] = ()) -> str:
    """Format ``rows`` of text in aligned columns, below ``head`` if given.

    Args:
        align: one letter per column, l for left and r for right.
    """
    from tabulate import tabulate  # every command imports this module

    sides = [{"l": "left", "r": "right"}[letter] for letter in align]
    return tabulate(rows, head, "plain", disable_numparse=True, preserve_whitespace=True, colalign=sides)
