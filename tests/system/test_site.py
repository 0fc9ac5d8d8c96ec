"""The docs site builds without a warning and without network, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.runs import ROOT

pytestmark = pytest.mark.slow
# the tags that make a browser fetch what they name; a link is fetched when somebody clicks on it
FETCHED = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=\"?(?:https?:)?//|<link\b[^>]*?https?://[^>]*>")
HARMLESS = re.compile(r'rel="?(?:canonical|next|prev|alternate)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {page.relative_to(site).as_posix(): page.read_text("utf-8") for page in site.rglob("*.html")}
    sources = [
        page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*") if page.suffix in (".md", ".ipynb")
    ]
    assert {source.with_suffix(".html").as_posix() for source in sources} | {"security.html"} <= set(pages)
    foreign = {name: [tag for tag in FETCHED.findall(text) if not HARMLESS.search(tag)] for name, text in pages.items()}
    assert {name: tags for name, tags in foreign.items() if tags} == {}
    assert not [sheet for sheet in site.rglob("*.css") if re.search(r"url\(['\"]?https?:", sheet.read_text("utf-8"))]


def test_the_reference_holds_the_public_objects_and_what_is_made_from_the_code(site: Path) -> None:
    weights = (site / "reference" / "weights.html").read_text("utf-8")
    assert 'id="orthogan.weights.stable_rank_norm"' in weights
    assert "&lt;!-- api" not in weights
    names = (site / "reference" / "registries.html").read_text("utf-8")
    for name in ("stable_rank", "srip", "nearest_orthogonal", "eigengan", "fashion-mnist", "diffaugment", "prc", "dci"):
        assert f"<code>{name}</code>" in names
    assert "<code>training.d_steps_per_g_step</code>" in (site / "reference" / "config.html").read_text("utf-8")
    assert "<code>--reference-samples" in (site / "reference" / "cli.html").read_text("utf-8")


def test_links_lead_to_a_page_of_the_site_or_to_github(site: Path) -> None:
    text = (site / "speed.html").read_text("utf-8")
    assert 'href="benchmarks-notes.html"' in text
    assert 'href="https://github.com/orthogan/orthogan/blob/main/benchmarks/results/race-cpu.json"' in text


def test_arxiv_ids_are_links(site: Path) -> None:
    pages = "".join(page.read_text("utf-8") for page in site.rglob("*.html"))
    assert '<a href="https://arxiv.org/abs/2306.09939">' in pages
