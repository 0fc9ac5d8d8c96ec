"""The live page in a real browser: it works, keeps to this machine, and what it shows and saves is exact."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.explorer import page as explorer_page
from orthogan.latent.explorer.page import Served, build_page, explore
from orthogan.latent.explorer.session import Explorer
from orthogan.latent.explorer.state import ExplorerState, View
from tests.fixtures.disc import Disc

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = ["dim", "middling", "bright"]
NASTY = "<b>x</b> ${1} {{2}} `'\""
STAGE = "#stage .now img"

pytest.importorskip("gradio", reason="needs the extra explore")


def net() -> Disc:
    return Disc(channels=3, num_classes=3, dim=20)


def axes() -> Directions:
    """ "z0" … "z19", the fourth under a name that a careless page would run or drop."""
    return latent_axes(net()).renamed(3, NASTY, "brightness")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Served, list[Any]]]:
    """The page, and every address that this process looked up or called while it was served."""
    called: list[Any] = []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def note_look_up(host: Any, *rest: Any, **more: Any) -> Any:
        called.append(host)
        return look_up(host, *rest, **more)

    def note_connect(self: socket.socket, address: Any) -> Any:
        called.append(address[0] if isinstance(address, tuple) else address)
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", note_look_up)
        patch.setattr(socket.socket, "connect", note_connect)
        page = explore(net(), axes(), class_names=NAMES, title=f"Discs {NASTY}", port=0, block=False)
        yield page, called
        page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    with driver.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
        )
        yield found
        found.close()


class Visit:
    """One visit to the page, with what the browser complained of and what it asked for elsewhere."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

        def route(asked: Any) -> None:
            if asked.request.url.startswith(url):
                asked.continue_()
            else:
                self.elsewhere.append(asked.request.url)
                asked.abort()

        self.context.route("**/*", route)
        self.page.goto(url)
        self.page.wait_for_selector("#list li")

    def source(self, selector: str = STAGE) -> str:
        return self.page.get_attribute(selector, "src")

    def pixels(self, selector: str = STAGE) -> np.ndarray:
        """(c, h, w)"""
        data = base64.b64decode(self.source(selector).split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)

    def wait_for(self, caption: str) -> None:
        """Until the picture is that of ``caption``."""
        self.page.wait_for_function(
            "caption => document.querySelector('#stage .now figcaption').textContent === caption", arg=caption
        )

    def row(self, name: str) -> Any:
        return self.page.locator("#list li").filter(has=self.page.get_by_role("button", name=name, exact=True))

    def move(self, name: str, offset: str) -> None:
        self.row(name).locator("input[type=number]").fill(offset)

    def download(self, selector: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.fixture
def visit(browser: Any, served: tuple[Served, list[Any]]) -> Iterator[Visit]:
    found = Visit(browser, served[0].url)
    yield found
    found.context.close()


def drawn(offsets: dict[int, float], *, seed: int = 7, label: int = 1, truncation: float = 1.0) -> np.ndarray:
    bench = ExplorerState(axes())
    every = tuple(offsets.get(index, 0.0) for index in range(len(bench.rows)))
    return Explorer(net()).image(bench, View(seed, label, truncation, every))


def test_it_works_without_complaint_or_network(visit: Visit, served: tuple[Served, list[Any]]) -> None:
    page = visit.page
    assert page.title() == f"Discs {NASTY}"
    assert page.inner_text("#heading h1") == f"Discs {NASTY}"
    assert visit.row(NASTY).locator(".scores").inner_text().endswith("brightness")
    start = visit.source()
    assert np.array_equal(visit.pixels(), drawn({}))
    assert visit.source(".base img") == start

    visit.move("z0", "2")
    visit.wait_for("seed 7, middling, z0 +2")
    assert np.array_equal(visit.pixels(), drawn({0: 2.0}))
    assert visit.source(".base img") == start
    slider = visit.row("z4").locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    visit.wait_for("seed 7, middling, z0 +2, z4 +3")
    assert np.array_equal(visit.pixels(), drawn({0: 2.0, 4: 3.0}))
    assert slider.get_attribute("aria-valuetext") == "offset 3"
    assert float(page.inner_text(".difference figcaption").split()[1]) > 0

    page.select_option("#list .reach", "1")  # the offsets stay, beyond the slider's end too
    assert visit.row("z0").locator("input[type=number]").input_value() == "2"
    page.click("#list .reset")
    visit.wait_for("seed 7, middling, unedited")
    assert visit.source() == start
    assert page.inner_text(".difference figcaption") == "difference 0.0"

    assert visit.complaints == []
    assert visit.elsewhere == []
    assert page.evaluate("document.fonts.size") == 0
    assert {str(host) for host in served[1]} <= {"127.0.0.1", "localhost", "None"}


def test_seed_class_and_truncation_change_the_base(visit: Visit) -> None:
    page = visit.page
    page.click("#after")
    visit.wait_for("seed 8, middling, unedited")
    assert np.array_equal(visit.pixels(), drawn({}, seed=8))
    page.click("#before")
    visit.wait_for("seed 7, middling, unedited")
    page.click("#other")
    page.wait_for_function("document.querySelector('#seed input').value !== '7'")
    other = int(page.input_value("#seed input"))
    visit.wait_for(f"seed {other}, middling, unedited")
    page.fill("#seed input", "21")
    visit.wait_for("seed 21, middling, unedited")
    page.click("#class input")
    page.get_by_role("option", name="bright").click()
    visit.wait_for("seed 21, bright, unedited")
    assert np.array_equal(visit.pixels(), drawn({}, seed=21, label=2))
    page.fill("#truncation input[type=number]", "0.5")
    page.keyboard.press("Enter")
    visit.wait_for("seed 21, bright, truncation 0.5, unedited")
    assert np.array_equal(visit.pixels(), drawn({}, seed=21, label=2, truncation=0.5))
    assert visit.complaints == []


def test_an_edit_is_kept_renamed_and_saved(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.click("#save")
    page.get_by_text("give the new direction a name").wait_for()
    visit.move("z1", "-1.5")
    visit.move("z4", "0.5")
    visit.wait_for("seed 7, middling, z1 -1.5, z4 +0.5")
    edited = visit.pixels()
    name, png = visit.download("#png")
    assert name == "seed7-edit.png"
    assert json.loads(Image.open(io.BytesIO(png)).text["offsets"]) == [["z1", -1.5], ["z4", 0.5]]

    page.fill("#edit input, #edit textarea", NASTY)
    page.click("#save")
    page.get_by_text(f"there is a direction '{NASTY}' already").wait_for()
    page.fill("#edit input, #edit textarea", "down and red")
    page.click("#save")
    visit.wait_for("seed 7, middling, down and red +1")
    assert np.abs(visit.pixels().astype(int) - edited).max() <= 1
    page.fill(".name-field", "sunset")
    page.fill(".note-field", "seen at the sea")
    page.keyboard.press("Tab")
    visit.row("z0").locator(".name").click()
    page.fill(".name-field", "left")
    page.keyboard.press("Enter")
    name, gif = visit.download(".loop")
    assert name == "left-seed7.gif"
    assert json.loads(Image.open(io.BytesIO(gif)).info["comment"])["class"] == "1"

    name, data = visit.download("#file")
    assert name == "directions.safetensors"
    path = tmp_path / name
    path.write_bytes(data)
    kept = Directions.load(path)
    kept.check(net())
    assert kept.names == ("left", "z1", "z2", NASTY, *(f"z{i}" for i in range(4, 20)), "sunset")
    assert (kept.notes[3], kept.notes[-1]) == ("brightness", "seen at the sea")
    expected = np.zeros(20, np.float32)
    expected[[1, 4]] = -1.5, 0.5
    assert np.array_equal(kept.matrix[-1], expected)
    assert visit.complaints == []


def test_another_file_is_loaded_or_refused_in_words(visit: Visit, tmp_path: Path) -> None:
    wrong = latent_axes(Disc(dim=7)).save(tmp_path / "wrong.safetensors")
    visit.page.set_input_files("#left input[type=file]", wrong)
    visit.page.get_by_text("made for a latent of 7 dimensions").wait_for()
    assert visit.page.locator("#list li").count() == 13  # twelve and the control
    visit.page.click("#list .more")
    assert visit.page.locator("#list li").count() == 21

    few = axes().select([5, 2]).save(tmp_path / "few.safetensors")
    visit.page.set_input_files("#left input[type=file]", few)
    visit.page.wait_for_function("document.querySelectorAll('#list li').length === 3")
    assert visit.page.locator("#list .name").all_inner_texts() == ["z2", "z5", "random control"]  # z5 moves nothing
    assert visit.page.inner_text("#heading p").startswith("2 directions")
    visit.move("z2", "1")
    visit.wait_for("seed 7, middling, z2 +1")
    assert np.array_equal(visit.pixels(), drawn({2: 1.0}))
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_system_and_keeps_the_picture_in_view(
    browser: Any, served: tuple[Served, list[Any]], scheme: str
) -> None:
    visit = Visit(browser, served[0].url, width=420, height=800, scheme=scheme)
    page = visit.page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(",")[:3])) < 384) is (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    visit.move("z0", "-3")
    visit.wait_for("seed 7, middling, z0 -3")
    visit.row("random control").scroll_into_view_if_needed()
    box = page.locator(STAGE).bounding_box()
    assert page.evaluate("window.scrollY") > 200
    assert 0 <= box["y"] < 40
    assert (box["width"], box["height"]) == (256, 256)
    # What is painted is the picture itself, each pixel a square of eight.
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).transpose(2, 0, 1)
    left, top = round(box["x"]), round(box["y"])
    painted = shot[:, top + 4 : top + 256 : 8, left + 4 : left + 256 : 8]
    assert np.abs(painted.astype(int) - drawn({0: -3.0})).max() <= 1
    visit.context.close()


def test_without_gradio_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[explore\]'"):
        build_page(net(), axes())


def test_ports_and_directions_that_cannot_be_served_are_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="try another --port"):
            explore(net(), axes(), port=taken.getsockname()[1])
    for host in ("no\x00host", "x" * 300, "é" * 100 + ".x", "999.0.0.1", "::zz"):
        with pytest.raises(UserError, match="cannot serve on"):
            explore(net(), axes(), host=host, port=0)
    with pytest.raises(UserError, match="--port 70000"):
        explore(net(), axes(), port=70000)
    with pytest.raises(UserError, match="latent of 6 dimensions"):
        explore(net(), latent_axes(Disc()), port=0)


def test_ctrl_c_ends_it_and_frees_the_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    class Clock:
        sleep = staticmethod(interrupted)

    monkeypatch.setattr(explorer_page, "time", Clock)
    over = explore(net(), axes(), class_names=NAMES, title="Discs", port=0)
    said = capsys.readouterr().out
    assert said.startswith(f"Discs: {over.url}  (Ctrl-C ends it)")
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", int(over.url.rstrip("/").rsplit(":", 1)[1])))
