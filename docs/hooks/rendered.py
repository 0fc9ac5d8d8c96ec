"""The last touch to each page: arXiv ids become links, formulas become MathML, which browsers draw themselves."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
OPAQUE = ("a", "pre", "code", "script", "style", "svg", "math")


def on_page_content(content: str, **_: Any) -> str:
    """Link every ``arXiv:2004.04690`` that is neither code nor a link yet, and convert the formulas."""
    content = FORMULA.sub(
        lambda one: convert(html.unescape(one[3]), display="inline" if one[2] == "(" else "block"), content
    )
    inside, parts = 0, []
    for part in re.split(r"(<[^>]*>)", content):
        tag = re.match(r"<(/?)([a-z]+)", part)
        if tag and tag[2] in OPAQUE and not part.endswith("/>"):
            inside += -1 if tag[1] else 1
        parts.append(part if part[:1] == "<" or inside else ARXIV.sub(_link, part))
    return "".join(parts)


def _link(match: re.Match[str]) -> str:
    return f'<a href="https://arxiv.org/abs/{match[1]}">arXiv:{match[1]}</a>'
