"""The page: self-contained, escaped, accessible, exact frames inside, and working in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.render import render
from orthogan.latent.render.animation import swing
from orthogan.latent.render.html import render_html
from orthogan.latent.render.picture import ceiling, colours, differences
from orthogan.latent.traverse import Traversal, traverse
from tests.fixtures.browser import CHROMIUM, LOOKS, PHONE, Visit, needs_browser
from tests.fixtures.browser import chromium as browser
from tests.fixtures.disc import Disc
from tests.fixtures.pictures import magnified

NASTY = "</script><script>alert(1)</script> \"q\" 'a' & <b>é @DATA@"


@pytest.fixture(scope="module")
def walk() -> Traversal:
    net = Disc(channels=3)
    plain = traverse(net, latent_axes(net), dims=[0, 2], steps=5, seed=3, control=1)
    return replace(plain, names=["x", NASTY, "random 1"], notes=["moves the disc", NASTY, ""])


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)

    def data(self) -> dict:
        return json.loads(self.scripts[0])


def test_well_formed_and_escaped(walk: Traversal) -> None:
    page = Page(render_html(walk))
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 2  # the data and the program, none smuggled in
    assert "b" not in [tag for tag, _ in page.tags]
    items = [attrs for tag, attrs in page.tags if tag == "li"]
    assert [item["data-name"] for item in items] == ["x", NASTY, "Random 1"]
    assert page.texts.count(NASTY) == 2  # as name and as note
    assert re.match(
        r"(Clear|Strong) change.*\.$", page.texts[page.texts.index("Random 1") + 4]
    )  # a sentence, where no note is
    assert not re.search("@[A-Z]+@", render_html(replace(walk, names=list("abc"), notes=list("abc"))))


def test_nothing_is_loaded_from_anywhere(walk: Traversal) -> None:
    text = render_html(walk)
    own = re.sub(r"data:image/png;base64,[^\"]*", "", text).replace('<link rel="icon" href="">', "")
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=|\bhref=", own)
    policy = next(a["content"] for t, a in Page(text).tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy


def test_strips_hold_the_exact_frames(walk: Traversal) -> None:
    data = Page(render_html(walk)).data()
    assert data["labels"] == ["-3", "-1.5", "0", "+1.5", "+3"]
    assert [tuple(entry) for entry in data["swing"]] == swing(5)
    for strip, frames in zip(data["strips"], walk.frames, strict=True):
        pixels = np.asarray(picture_in(strip))
        assert np.array_equal(pixels.reshape(32, 5, 32, 3).transpose(1, 3, 0, 2), frames)


def picture_in(uri: str) -> Image.Image:
    kind, encoded = uri.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_maps_are_those_of_the_picture_with_their_scale(walk: Traversal) -> None:
    page = Page(render_html(walk))
    data, maps = page.data(), differences(walk)
    for uri, heat in zip(data["heats"], maps, strict=True):
        pixels = np.asarray(picture_in(uri).convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(pixels, colours(heat, ceiling(maps)))
    assert data["maps"] is False
    assert Page(render_html(walk, heatmap=True)).data()["maps"] is True
    text = " ".join(" ".join(page.texts).split())
    assert f"where its two ends differ from its middle, from 0 to {ceiling(maps):g} of 255" in text
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "heat"]
    assert labels == [f"where {name} changes the picture" for name in ("x", NASTY, "Random 1")]


def test_sliders_are_labelled_and_start_in_the_middle(walk: Traversal) -> None:
    page = Page(render_html(walk))
    sliders = [attrs for tag, attrs in page.tags if tag == "input"]
    assert len(sliders) == 4
    assert all((s["type"], s["min"], s["max"], s["value"]) == ("range", "0", "4", "2") for s in sliders)
    assert all(s["aria-label"] and s["aria-valuetext"] == "0" for s in sliders)
    pictures = [attrs for tag, attrs in page.tags if attrs.get("class") == "picture"]
    assert pictures[0]["aria-label"] == "x at 0"
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["for"] for tag, attrs in page.tags if tag in ("output", "label")} <= set(ids)
    assert "lang" in page.tags[0][1]


def test_scores_controls_and_provenance_are_told(walk: Traversal) -> None:
    page = Page(render_html(replace(walk, scores=[{"sigma": 2.5, "change": 9.0}] * 2 + [{"change": 1.0}])))
    text = "\n".join(page.texts)
    assert text.count("sigma 2.5, change 9.0") == 2
    assert text.index("Directions") < text.index("Random directions, for comparison") < text.index("change 1.0")
    for key, value in walk.metadata.items():
        assert not value or (key in page.texts and value in page.texts)
    alone = replace(
        walk,
        frames=walk.frames[:1],
        names=["x"],
        notes=[""],
        scores=walk.scores[:1],
        is_control=walk.is_control[:1],
    )
    assert "meaningful if it changes the picture more" in text
    assert "andom" not in "\n".join(Page(render_html(alone)).texts)
    plain = "\n".join(Page(render_html(replace(alone, names=["z3.1"]))).texts)
    assert "Layer 3, direction 1" in plain
    assert "z3.1: change" in plain  # its own name, among the details


def chromium(page: Path, profile: Path, *options: str) -> str:
    """Standard output of one headless visit to ``page``."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--force-device-scale-factor=1",
        "--window-size=900,900",
        f"--user-data-dir={profile}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


# Works the page as a person would and leaves what it saw in the title; appended to the page under test only.
DRIVER = """<script>
const seen = [];
const slider = document.getElementById("slider0"), picture = document.querySelector(".picture");
const theme = document.getElementById("theme"), where = document.getElementById("where");
const note = function () { seen.push([slider.value, picture.style.backgroundPosition,
  picture.getAttribute("aria-label"), document.querySelector("output").textContent,
  document.getElementById("slider1").value]); };
const press = function (key) {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: key, bubbles: true, cancelable: true})); };
const look = function () {
  const style = getComputedStyle(document.body);
  return [theme.textContent, style.backgroundColor, style.color]; };
const maps = function () {
  return [where.getAttribute("aria-pressed"), document.querySelector(".heat").getBoundingClientRect().height,
    document.getElementById("legend").getBoundingClientRect().height > 0]; };
note();
slider.value = 4; slider.dispatchEvent(new Event("input")); note();
slider.focus(); press("ArrowDown"); seen.push(document.activeElement.id); press("ArrowUp"); press("ArrowUp");
seen.push(document.activeElement.id);
press("0"); note();
document.activeElement.blur(); press("ArrowRight"); note();
press(" "); seen.push(document.getElementById("play").textContent); note();
press(" "); seen.push(document.getElementById("play").textContent);
document.getElementById("reset").click();
const looks = [look()];
theme.click(); looks.push(look()); press("d"); looks.push(look()); press("D"); looks.push(look());
const heats = [maps()];
where.click(); heats.push(maps()); press("w"); heats.push(maps()); press("W");
slider.value = 0; slider.dispatchEvent(new Event("input"));
const boxes = [picture, document.querySelector(".heat")].map(function (part) {
  const box = part.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; });
document.title = JSON.stringify({seen: seen, looks: looks, heats: heats, boxes: boxes,
  wide: document.documentElement.scrollWidth > window.innerWidth});
</script>"""

LIGHT = ["rgb(250, 250, 250)", "rgb(38, 38, 43)"]
DARK = ["rgb(23, 23, 26)", "rgb(236, 236, 240)"]


def drive(page: Path, folder: Path, *options: str) -> dict:
    """What the driver told, and the picture that the browser painted at the end, under "shot"."""
    driven, shot = folder / "driven.html", folder / "shot.png"
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    visited = chromium(driven, folder / "profile", "--dump-dom", *options)
    chromium(driven, folder / "profile", f"--screenshot={shot}", *options)
    title = re.search("<title>(.*?)</title>", visited)
    assert title is not None
    told = json.loads(title[1].replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<"))
    return {**told, "shot": np.asarray(Image.open(shot).convert("RGB"))}


def painted(told: dict, part: int) -> np.ndarray:
    left, top, width, height = (round(v) for v in told["boxes"][part])
    assert (width, height) == (160, 160)
    return told["shot"][top : top + 160, left : left + 160].astype(int)


@needs_browser
@pytest.mark.slow
def test_the_page_works_in_a_browser(walk: Traversal, tmp_path: Path) -> None:
    told = drive(render(walk, tmp_path / "page.html"), tmp_path)
    start, moved, below, above, reset, right, playing, played, paused = told["seen"]
    assert start == ["2", "50% 0px", "x at 0", "0", "2"]
    assert moved == ["4", "100% 0px", "x at +3", "+3", "2"]
    assert (below, above) == ("slider1", "all")
    assert reset == start
    assert right == ["3", "75% 0px", "x at +1.5", "+1.5", "3"]
    assert (playing, paused) == ("Pause", "Play")
    assert played == right  # playing goes on from where it stands
    # The button offers the other of the two, whatever the system's is; the keys do the same.
    assert told["looks"] == [["Dark", *LIGHT], ["Light", *DARK], ["Dark", *LIGHT], ["Light", *DARK]]
    assert told["heats"] == [["false", 0, False], ["true", 160, True], ["false", 0, False]]
    assert told["wide"] is False
    assert tuple(told["shot"][0, 0]) == (23, 23, 26)
    # What the browser painted at the far left offset is that frame, every pixel a square of five, and so the map.
    maps = differences(walk)
    for part, image in enumerate((walk.frames[0, 0], colours(maps[0], ceiling(maps)))):
        assert np.abs(painted(told, part) - magnified(image, 5)).max() <= 1


@needs_browser
@pytest.mark.slow
def test_the_page_follows_a_dark_system_until_the_button_is_pressed(walk: Traversal, tmp_path: Path) -> None:
    told = drive(
        render(walk, tmp_path / "page.html", heatmap=True), tmp_path, "--blink-settings=preferredColorScheme=0"
    )
    assert told["looks"][:2] == [["Light", *DARK], ["Dark", *LIGHT]]
    assert told["heats"][0] == ["true", 160, True]  # asked for when the page was made


@needs_browser
@pytest.mark.slow
def test_everybody_can_use_it(walk: Traversal, tmp_path: Path) -> None:
    page = render(walk, tmp_path / "page.html")
    with browser() as found:
        for size, scheme in LOOKS:
            visit = Visit(found, page.as_uri(), size=size, scheme=scheme)
            visit.page.locator("summary").first.click()
            visit.page.click("#where")
            assert visit.violations() == []
            assert visit.fits()
            assert visit.page.locator(".keys").is_visible() is (size != PHONE)  # no keys to press on a phone
            boxes = [item.bounding_box() for item in visit.page.locator(".rows > li").all()[:2]]
            assert boxes[0]["y"] == boxes[1]["y"]  # two in a row, on a phone too
            if size == PHONE:
                assert boxes[0]["width"] > 0.45 * size[0]
            assert visit.complaints == visit.elsewhere == []
            visit.context.close()
