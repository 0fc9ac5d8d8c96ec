"""Docstrings as Markdown: products such as in*kh*kw are no emphasis, and an Example is a block of code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Edits docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Edit one docstring."""
        if obj.docstring is None:
            return
        lines = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE).split("\n")
        obj.docstring.value = "\n".join(
            line if re.match(r" *(>>>|\.\.\.)", line) else _without_emphasis(line) for line in lines
        )


def _without_emphasis(line: str) -> str:
    parts = re.split(r"(``[^`]+``|`[^`]+`)", line)
    return "".join(part if part[:1] == "`" else re.sub(r"(?<=\w)\*(?=\w)", r"\\*", part) for part in parts)
