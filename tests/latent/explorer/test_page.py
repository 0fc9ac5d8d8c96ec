"""The live page in a real browser: it works, keeps to this machine, restores links, and is open to everybody."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
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
from orthogan.latent.explorer.app import Choice
from orthogan.latent.explorer.page import Served, explore
from orthogan.latent.explorer.session import Explorer
from orthogan.latent.explorer.state import Sliders, View, control_of
from orthogan.models import DCGANGenerator
from tests.fixtures.browser import DESKTOP, LOOKS, PHONE, Visit, chromium, needs_browser
from tests.fixtures.disc import Disc

NAMES = ["dim", "middling", "bright"]
NASTY = "<b>x</b> ${1} {{2}} `'\""
TITLE = f"Discs {NASTY}"
NOW = "#now"
PLACE = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const box = document.getElementById("now").getBoundingClientRect();
  done([box.top, box.width, box.height]);
})))"""


def net() -> Disc:
    return Disc(channels=3, num_classes=3, dim=20)


def other_net() -> Disc:
    return Disc(dim=8)


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

    def lost() -> Any:
        raise UserError("runs/lost: no such run")

    grey = other_net()
    models = [Choice("grey", lambda: (grey, latent_axes(grey), [])), Choice("lost", lost)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", note_look_up)
        patch.setattr(socket.socket, "connect", note_connect)
        page = explore(net(), axes(), class_names=NAMES, title=TITLE, models=models, port=0, block=False)
        yield page, called
        page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Page(Visit):
    """A visit to the live page."""

    def pixels(self, selector: str = NOW) -> np.ndarray:
        """(c, h, w)"""
        data = base64.b64decode(self.page.get_attribute(selector, "src").split(",")[1])
        found = np.asarray(Image.open(io.BytesIO(data)))
        return found.transpose(2, 0, 1) if found.ndim == 3 else found[None]

    def shows(self, caption: str) -> None:
        """Wait until the picture is that of ``caption``."""
        self.page.locator(f'{NOW}[data-drawn="{caption}"]').wait_for()

    def says(self, words: str) -> None:
        """Wait until the status line holds ``words``."""
        self.page.locator("#status").filter(has_text=words).wait_for()

    def row(self, name: str) -> Any:
        return self.page.locator("#rows > li").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def move(self, name: str, offset: str) -> None:
        slider = self.row(name).locator("input[type=range]")
        slider.fill(offset)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def download(self, selector: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.fixture
def visit(browser: Any, served: tuple[Served, list[Any]]) -> Iterator[Page]:
    found = Page(browser, served[0].url)
    found.shows("Seed 7")
    yield found
    assert found.elsewhere == []
    found.context.close()


def drawn(offsets: dict[int, float] | None = None, label: int = 1, **more: Any) -> np.ndarray:
    sliders = Sliders(axes(), control_of(axes()))
    return Explorer(net()).image(sliders, View(label=label, offsets=tuple((offsets or {}).items()), **more))


@needs_browser
@pytest.mark.slow
def test_pictures_are_exact_and_changes_are_undone_and_redone(visit: Page, served: tuple[Served, list[Any]]) -> None:
    page = visit.page
    assert page.title() == f"{TITLE} · orthogan"
    assert page.locator("#title").text_content() == TITLE
    assert np.array_equal(visit.pixels(), drawn())
    assert page.locator("#compare").is_hidden()
    assert page.locator("#keep").is_hidden()
    assert visit.row(NASTY).locator(".words").inner_text() == "brightness"
    assert visit.row("Direction 2").locator(".words").inner_text().startswith("Subtle change, mostly in the middle.")

    visit.move("Direction 0", "2")
    visit.shows("Seed 7, Direction 0 +2")
    assert np.array_equal(visit.pixels(), drawn({0: 2.0}))
    assert np.array_equal(visit.pixels("#before"), drawn())
    slider = visit.row("Direction 4").locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    visit.shows("Seed 7, Direction 0 +2, Direction 4 +3")
    assert np.array_equal(visit.pixels(), drawn({0: 2.0, 4: 3.0}))
    assert slider.get_attribute("aria-valuetext") == "+3"

    page.keyboard.press("Control+z")
    visit.shows("Seed 7, Direction 0 +2")
    page.click("#undo")
    visit.shows("Seed 7")
    assert page.locator("#compare").is_hidden()
    assert page.is_disabled("#undo")
    page.keyboard.press("Control+Shift+z")
    visit.shows("Seed 7, Direction 0 +2")
    page.click("#redo")
    visit.shows("Seed 7, Direction 0 +2, Direction 4 +3")
    visit.row("Direction 4").get_by_role("button", name="Back to 0").click()
    visit.shows("Seed 7, Direction 0 +2")
    visit.row("Direction 1").get_by_role("button", name="all the way left").click()
    visit.shows("Seed 7, Direction 0 +2, Direction 1 −3")
    page.click("#reset")
    visit.shows("Seed 7")
    page.click("#surprise")
    page.locator(f'{NOW}:not([data-drawn="Seed 7"])').wait_for()
    assert page.locator("#rows > li.moved").count() >= 1
    page.click("#undo")
    visit.shows("Seed 7")
    assert visit.complaints == []
    assert page.evaluate("document.fonts.size") == 0
    assert {str(host) for host in served[1]} <= {"127.0.0.1", "localhost", "None"}


@needs_browser
@pytest.mark.slow
def test_wrong_input_is_answered_in_the_status_line(visit: Page, capfd: pytest.CaptureFixture[str]) -> None:
    page = visit.page
    for wrong in ("-5", "1.7", "x", "99999999999999999999"):
        page.fill("#seed", wrong)
        page.keyboard.press("Enter")
        visit.says(f"“{wrong}” is not a seed")
        assert page.get_attribute("#seed", "aria-invalid") == "true"
    page.fill("#seed", "21")
    page.keyboard.press("Enter")
    visit.shows("Seed 21")
    assert page.inner_text("#status") == ""
    assert page.get_attribute("#seed", "aria-invalid") is None
    visit.row("Direction 0").locator("summary").click()
    field = visit.row("Direction 0").get_by_label("Exact value")
    for wrong in ("99", "", "-3.01", "one"):
        field.fill(wrong)
        field.press("Enter")
        visit.says(f"“{wrong}” does not fit: an offset is a number from −3 to 3")
    page.select_option("#reach", "20")
    field = visit.row("Direction 0").get_by_label("Exact value")
    field.fill("9.5")
    field.press("Enter")
    visit.shows("Seed 21, Direction 0 +9.5")
    page.select_option("#class", label="bright")
    page.locator("#variety").fill("50")
    page.locator('#variety-value:text("50%")').wait_for()
    page.click("#next")
    visit.shows("Seed 22, Direction 0 +9.5")
    assert np.array_equal(visit.pixels(), drawn({0: 9.5}, label=2, seed=22, truncation=0.5))
    page.select_option("#model", "lost")
    visit.says("runs/lost: no such run.")
    assert page.input_value("#model") == TITLE
    assert "Traceback" not in capfd.readouterr().err
    assert [one for one in visit.complaints if "400" not in one] == []  # the browser notes the answer to "lost"


@needs_browser
@pytest.mark.slow
def test_a_link_restores_the_picture_in_another_browser(visit: Page, browser: Any, served: tuple[Served, Any]) -> None:
    page = visit.page
    visit.move("Direction 1", "-1.5")
    visit.shows("Seed 7, Direction 1 −1.5")
    page.select_option("#class", label="dim")
    page.locator("#variety").fill("80")
    visit.tab("Blend")
    page.fill("#second", "12")
    page.keyboard.press("Tab")
    page.locator("#mix").fill("30")
    visit.shows("Seed 7, 30% of seed 12, Direction 1 −1.5")
    expected = drawn({1: -1.5}, label=0, truncation=0.8, other=12, mix=0.3)
    assert np.array_equal(visit.pixels(), expected)
    again = Page(browser, page.url)
    again.shows("Seed 7, 30% of seed 12, Direction 1 −1.5")
    assert np.array_equal(again.pixels(), expected)
    assert again.complaints == []

    home = served[0].url
    for link, words in [
        ("seed=-5", "the seed cannot be “-5”"),
        ("seed=1.7", "the seed cannot be “1.7”"),
        ("seed=7&change=0:999", "a change cannot be “999”"),
        ("seed=7&change=0", "a change cannot be “0”"),
        ("seed=7&change=500:1", "a slider that this model does not have"),
        ("seed=7&class=9", "class 9, and this model has 3"),
        ("seed=7&blend=3:7", "the blend cannot be “7”"),
        ("seed=7&variety=2", "the variety cannot be “2”"),
        ("model=elsewhere&seed=7", "for the model “elsewhere”"),
        ("seed=7&hash=000000000000", "other weights of this model"),
        ("seed=7&sliders=abc&change=0:1", "uses sliders from a file"),
    ]:
        again.page.evaluate("link => { location.hash = link; }", link)
        again.says(words)
    again.page.goto(f"{home}#model=grey&seed=9&change=0:1")
    again.page.reload()
    again.shows("Seed 9, Direction 0 +1")
    assert again.page.title() == "grey · orthogan"
    again.context.close()


@needs_browser
@pytest.mark.slow
def test_models_are_switched_and_undone_and_seeds_are_chosen_from_pictures(visit: Page) -> None:
    page = visit.page
    visit.move("Direction 0", "1")
    visit.shows("Seed 7, Direction 0 +1")
    page.select_option("#model", "grey")
    visit.shows("Seed 7")
    assert page.title() == "grey · orthogan"
    assert page.locator("#classes").is_hidden()
    assert page.locator("#rows > li").count() == 9
    page.click("#undo")
    visit.shows("Seed 7, Direction 0 +1")
    assert page.input_value("#model") == TITLE
    assert np.array_equal(visit.pixels(), drawn({0: 1.0}))

    visit.tab("Pictures")
    page.locator('#thumbs[data-drawn="24"]').wait_for()
    assert page.get_by_role("button", name="Open seed 7").get_attribute("aria-current") == "true"
    assert np.abs(visit.pixels('[data-seed="3"] img').astype(int) - drawn(seed=3)).max() <= 1
    page.check("#edited")
    page.get_by_role("button", name="Open seed 3").click()
    visit.shows("Seed 3, Direction 0 +1")
    page.click("#more-pictures")
    page.locator('#thumbs[data-drawn="48"]').wait_for()
    assert page.locator("#thumbs img[src^=data]").count() == 48

    assert page.get_by_role("button", name="Mark seed 3 as A").is_disabled()  # marks are for unchanged pictures
    page.uncheck("#edited")
    for seed, mark in ((0, "A"), (1, "B"), (2, "A"), (3, "B"), (5, "B")):
        page.get_by_role("button", name=f"Mark seed {seed} as {mark}", exact=True).click()
    page.get_by_role("button", name="Mark seed 5 as B", exact=True).click()  # and not again
    assert page.inner_text("#marked") == "Marked: 2 as A, 2 as B."
    page.get_by_role("button", name="Make a direction").click()
    visit.says("Give the new direction a name first.")
    page.fill("#mark-name", "glasses")
    page.get_by_role("button", name="Make a direction").click()
    visit.says("is now a slider under Change.")
    visit.tab("Change")
    visit.move("glasses", "3")
    visit.shows("Seed 3, Direction 0 +1, glasses +3")
    page.click("#undo")
    visit.shows("Seed 3, Direction 0 +1")

    visit.tab("Blend")
    page.locator("#blend-second[src^=data]").wait_for()
    page.click("#swap")
    visit.shows("Seed 4, 100% of seed 3, Direction 0 +1")
    page.click("#blend-play")
    visit.says("Playing.")
    assert page.inner_text("#blend-play") == "Stop"
    page.click("#blend-play")
    assert page.inner_text("#blend-play") == "Play"
    page.get_by_role("tab", name="Blend").press("ArrowRight")
    assert page.locator("#save").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-save"
    assert visit.complaints == []


@needs_browser
@pytest.mark.slow
def test_changes_are_kept_renamed_saved_and_loaded(visit: Page, tmp_path: Path) -> None:
    page = visit.page
    visit.move("Direction 1", "-1.5")
    visit.move("Direction 4", "0.5")
    visit.shows("Seed 7, Direction 1 −1.5, Direction 4 +0.5")
    edited = visit.pixels()
    page.get_by_role("button", name="Keep as a slider").click()
    visit.says("Give this change a name first.")
    page.fill("#keep-name", NASTY)
    page.keyboard.press("Enter")
    visit.says("already: choose another name")
    page.fill("#keep-name", "sunset")
    page.keyboard.press("Enter")
    visit.shows("Seed 7, sunset +1")
    assert np.array_equal(visit.pixels(), edited)
    visit.row("Direction 0").locator("summary").click()
    visit.row("Direction 0").get_by_label("Name").first.fill("left")
    page.keyboard.press("Enter")
    visit.row("left").wait_for()

    visit.tab("Save")
    name, data = visit.download("#file")
    assert name == "Discs--b-x--b----1----2-directions.safetensors"
    path = tmp_path / name
    path.write_bytes(data)
    kept = Directions.load(path)
    kept.check(net())
    assert (kept.names[0], kept.names[3], kept.names[-1]) == ("left", NASTY, "sunset")
    expected = np.zeros(20, np.float32)
    expected[[1, 4]] = -1.5, 0.5
    assert np.array_equal(kept.matrix[-1], expected)

    name, png = visit.download("#png")
    assert name == "seed7-edit.png"
    assert Image.open(io.BytesIO(png)).size == (1024, 1024)
    assert json.loads(Image.open(io.BytesIO(png)).text["offsets"]) == [["z1", -1.5], ["z4", 0.5]]
    page.select_option("#motion", label="My changes, there and back")
    page.select_option("#loop-side", "128")
    page.select_option("#seconds", "2")
    name, gif = visit.download("#loop")
    assert name == "edit-seed7.gif"
    assert Image.open(io.BytesIO(gif)).size == (128, 128)

    wrong = latent_axes(Disc(dim=7)).save(tmp_path / "wrong.safetensors")
    page.set_input_files("#load", wrong)
    visit.says("wrong.safetensors: made for a latent of 7 dimensions")
    few = axes().select([5, 2]).save(tmp_path / "few.safetensors")
    page.set_input_files("#load", few)
    visit.says("Loaded 2 sliders from few.safetensors.")
    visit.tab("Change")
    assert page.locator("#rows h2").all_inner_texts() == ["Direction 2", "Direction 5", "Random direction"]
    visit.move("Direction 2", "1")
    visit.shows("Seed 7, Direction 2 +1")
    assert np.array_equal(visit.pixels(), drawn({2: 1.0}))
    page.reload()
    visit.shows("Seed 7, Direction 2 +1")  # the server still has the file
    assert [one for one in visit.complaints if "400" not in one] == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_picture_of_the_user_is_opened_and_canceled(
    browser: Any, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("app", "opening"):
        monkeypatch.setattr(f"orthogan.latent.explorer.{room}.STEPS", 40)
    gate = threading.Event()

    def against(device: Any) -> None:
        gate.wait(60)

    mine, nonsense = tmp_path / "me.png", tmp_path / "broken.png"
    Image.fromarray(drawn(seed=5).transpose(1, 2, 0)).resize((128, 128)).save(mine)
    nonsense.write_bytes(b"nonsense")
    served = explore(net(), axes(), title="Discs", port=0, block=False, against=against)
    visit = Page(browser, served.url, size=size)
    page = visit.page
    visit.shows("Seed 7")
    assert page.locator("#starts").is_hidden()
    page.get_by_label("Open picture").set_input_files(nonsense)
    visit.says("broken.png: not an image in a format that orthogan reads.")
    page.get_by_label("Open picture").set_input_files(mine)
    visit.says("Searching for me.png in the model …")
    visit.move("Direction 0", "2")  # the page stays responsive
    visit.shows("Seed 7, Direction 0 +2")
    assert page.get_by_role("progressbar", name="Searching").is_visible()
    assert visit.violations() == []
    assert visit.fits()
    page.get_by_role("button", name="Cancel").click()
    visit.says("Canceled.")
    assert page.locator("#projecting").is_hidden()
    gate.set()
    page.get_by_label("Open picture").set_input_files(mine)
    visit.says("me.png is open. The sliders start from it.")
    visit.shows("me.png")
    assert page.inner_text("#error").startswith("Error: ")
    assert np.array_equal(visit.pixels("#reconstruction"), visit.pixels())
    assert np.abs(visit.pixels("#original").astype(float) - drawn(seed=5)).mean() < 20
    assert visit.violations() == []
    assert visit.fits()
    visit.move("Direction 0", "2")
    visit.shows("me.png, Direction 0 +2")
    page.reload()
    visit.shows("me.png, Direction 0 +2")  # the server still has it
    page.get_by_label("Start from").select_option(label="the seed")
    visit.shows("Seed 7, Direction 0 +2")
    page.click("#undo")
    visit.shows("me.png, Direction 0 +2")
    page.click("#next")
    visit.shows("Seed 8, Direction 0 +2")
    page.evaluate("location.hash = 'seed=7&picture=0123456789ab'")
    visit.says("a picture that is not open here anymore")
    assert [one for one in visit.complaints if "400" not in one] == []
    assert visit.elsewhere == []
    visit.context.close()
    served.close()


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), LOOKS, ids=lambda value: str(value))
def test_everybody_can_use_it(browser: Any, served: tuple[Served, Any], size: tuple[int, int], scheme: str) -> None:
    visit = Page(browser, served[0].url, size=size, scheme=scheme)
    page = visit.page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(",")[:3])) < 384) is (scheme == "dark")
    page.fill("#seed", "-5")
    page.keyboard.press("Enter")
    visit.says("not a seed")
    visit.move("Direction 0", "-3")
    visit.row("Direction 0").locator("summary").click()
    visit.shows("Seed 7, Direction 0 −3")
    for name in ("Change", "Pictures", "Blend", "Save"):
        visit.tab(name)
        assert visit.violations() == []
        assert visit.fits()
    if size == PHONE:  # the picture stays in view, and its pixels are square
        visit.tab("Change")
        visit.row("Random direction").scroll_into_view_if_needed()
        assert page.evaluate("window.scrollY") > 200
        top, width, height = page.evaluate(PLACE)
        assert 0 <= top < 40
        assert width == height
    visit.context.close()


@needs_browser
def test_rectangles_fill_their_place(browser: Any) -> None:
    wide = DCGANGenerator(resolution=(16, 24), image_channels=3, channels=16, latent_dim=4)
    served = explore(wide.eval(), latent_axes(wide), title="wide", port=0, block=False)
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(served.url)
        page.wait_for_selector("html[data-ready]")
        _, width, height = page.evaluate(PLACE)
        assert abs(width / height - 1.5) < 0.02
        page.get_by_role("tab", name="Save").click()
        assert page.locator("#png-side option").first.text_content() == "16 x 24 pixels"
        page.close()
    finally:
        served.close()


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
