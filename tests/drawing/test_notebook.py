"""What results show in a notebook: escaped tables, whole pages in a frame, pictures."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from orthogan.drawing.notebook import html_frame, html_table, png


class Reader(HTMLParser):
    """The tags, attributes and texts of a piece of HTML, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += [data] if data.strip() else []


def test_a_table_holds_its_texts_whatever_they_are() -> None:
    wild = "<script>alert('\"&')</script>"
    page = Reader(html_table([[wild, 1], ["b", 2.5]], ["name", wild], caption=wild, details=[wild, ""]))
    assert page.texts == [wild, "name", wild, wild, "1", "b", "2.5"]
    assert {tag for tag, _ in page.tags} == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert [attrs.get("title") for tag, attrs in page.tags if tag == "tr"] == [None, wild, None]
    assert [attrs["style"] for tag, attrs in page.tags if tag == "td"] == [
        f"text-align: {side}; padding: 0.2em 0.8em" for side in ("left", "right")
    ] * 2


def test_a_row_of_another_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        html_table([["a", "b", "c"]], ["name", "value"])


def test_a_frame_holds_the_page_and_cannot_reach_the_notebook() -> None:
    page = '<p title="a">&amp; "quoted" <b>bold</b></p>'
    ((tag, attrs),) = Reader(html_frame(page, 300)).tags
    assert (tag, attrs["srcdoc"], attrs["sandbox"]) == ("iframe", page, "allow-scripts")
    assert "height: 300px" in attrs["style"]


def test_a_picture_is_a_png() -> None:
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    found = Image.open(io.BytesIO(png(picture)))
    assert (found.format, found.size, found.getpixel((2, 1))) == ("PNG", (3, 2), (10, 20, 30))
