"""Reports: curves of rows over seeds, names of files, and a page that shows everything and loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthogan.studies.report import Report, curve, curves, write
from orthogan.studies.run_study import slug
from orthogan.studies.table import Entry
from tests.fixtures.browser import LOOKS, Visit, chromium, needs_browser
from tests.fixtures.stub import PIXEL
from tests.fixtures.tables import entry, table


def with_curve(row: str, seed: int, *points: tuple[float, float]) -> Entry:
    return Entry(row, seed, Path(row), curves={"loss": points})


def test_a_row_is_the_mean_over_its_seeds_where_all_have_a_value() -> None:
    found = table([with_curve("a", 0, (0, 1.0), (1, 2.0)), with_curve("a", 1, (0, 3.0), (1, 8.0), (2, 9.0))])
    drawn = curve(found, "a", "loss")
    assert drawn is not None
    assert drawn.points == [(0, 1.0, 2.0, 3.0), (1, 2.0, 5.0, 8.0)]
    assert drawn.base
    assert curves(found) == {"loss": [drawn]}


def test_letters_lose_their_accents_and_nothing_else() -> None:
    assert slug("true", "Fréchet distance") == "true-frechet-distance"
    assert slug("|D(x) - D(y)| / |x - y|", "99%") == "d-x-d-y-x-y-99"
    assert slug("距离") != slug("训练") != ""


@given(st.text())
def test_a_name_is_safe_and_stays_as_it_is(words: str) -> None:
    name = slug(words)
    assert not re.search(r"[/\\\s.]", name)
    assert slug(name) == name


class Page(HTMLParser):
    """The tags with their attributes, and the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_page_shows_tables_and_pictures_loads_nothing_and_runs_no_markup_of_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    (tmp_path / "cut.png").write_bytes(PIXEL[:40])
    good = entry("a|b", 0, 1.5, curves={"loss": [(0, 1.0), (1, 2.0)]}, pictures=["a.png", "cut.png"])
    bad = Entry("c", 0, tmp_path, "error", "<script>alert(1)</script> *and* `so`\non")
    rows = table([Entry(**{**vars(good), "folder": tmp_path}), bad])
    report = write(Report("A & B", "About it.", "orthogan compare", [rows]), tmp_path / "out")
    text = report.read_text(encoding="utf-8")
    page = Page(report.with_name("report.html").read_text(encoding="utf-8"))
    assert {"a|b", "1.5"} <= {cell.strip() for cell in page.cells}
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(re.findall(r"!\[", text)) == 2
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "c, seed 0: **error**. \\<script>" in text
    assert "a|b, seed 0: not a picture (" in text
    assert sorted(path.name for path in report.parent.iterdir()) == [
        "REPORT.md",
        "curves.png",
        "report.html",
        "samples.png",
        "table.json",
    ]


@needs_browser
@pytest.mark.slow
def test_everybody_can_read_the_page(tmp_path: Path) -> None:
    runs = [
        with_curve("discriminator.norm.kind=stable_rank, training.optimizer.lr=0.0005", 0, (0, 1.0), (1, 2.0)),
        entry("b", 0, 1.5),
    ]
    report = write(Report("Comparison", "About it.", "orthogan compare " + "runs/long " * 20, [table(runs)]), tmp_path)
    with chromium() as browser:
        for size, scheme in LOOKS:
            visit = Visit(browser, report.with_name("report.html").as_uri(), size=size, scheme=scheme, ready="main")
            assert visit.violations() == []
            assert visit.fits()
            assert visit.complaints == visit.elsewhere == []
            visit.context.close()
