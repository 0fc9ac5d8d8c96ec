"""The parts of a report, which ``report_markdown`` and ``report_html`` write each in their way.

Words may hold ``code`` between backticks and **strong** ones between two stars.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """``level`` 1 is the report's title."""

    words: str
    level: int = 2


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines as they are typed; ``language``: such as bash."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Grid:
    """A table; the first column is of words, the others of numbers."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawings:
    """SVG elements side by side; ``name``: of their files, without the ending."""

    name: str
    svgs: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Pictures:
    """(caption, file) of pictures side by side."""

    files: Sequence[tuple[str, Path]]
    caption: str


Block = Heading | Words | Bullets | Code | Grid | Drawings | Pictures


def storable(text: str) -> str:
    """``text`` as UTF-8 can hold it: the bytes of a file's name that are no text are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def slug(*words: str) -> str:
    """A name for a file: letters of any script, without their accents, and digits."""
    letters = unicodedata.normalize("NFKD", " ".join(words)).lower()
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", "-", plain).strip("-")
