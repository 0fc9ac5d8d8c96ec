"""Draws the pictures of docs/guides/explore.md: the live page with a shipped model; needs the extra dev and Chromium.

python docs/explore_pictures.py [MODEL]        # default: the model of the docs
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import orthogan
from orthogan.latent import first_layer_directions
from orthogan.latent.explorer.app import Choice
from orthogan.latent.explorer.page import explore
from orthogan.models.shipped import shipped_names

IMAGES = Path(__file__).parent / "images"
MODEL = "faces-srngan"
WAIT = 60_000  # milliseconds
GLASSES = {"A": (2, 3, 4, 5, 6, 9, 10, 13), "B": (0, 1, 7, 8, 11, 12, 18, 22)}  # seeds of MODEL without and with them
COLORS = 200  # of a picture, which makes it several times smaller


def save(page: Any, name: str) -> None:
    """What the browser shows, in few colors."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.quantize(COLORS, dither=Image.Dither.NONE).save(IMAGES / f"explore-{name}.png", optimize=True)


def chosen(model: str) -> Choice:
    """A shipped model with its own directions."""

    def opened() -> Any:
        net = orthogan.load(model)
        return net, first_layer_directions(net), []

    return Choice(model, opened)


def show(page: Any, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(2500)


def main(model: str) -> None:
    """Change, Pictures, Blend and Save on a wide screen, and Change on a phone in the dark."""
    net, directions, names = chosen(model).open()
    others = [chosen(name) for name in shipped_names() if name != model]
    served = explore(net, directions, class_names=names, title=model, models=others, port=0, block=False)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for size, scheme in (((1280, 860), "light"), ((390, 844), "dark")):
                page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
                page.set_default_timeout(WAIT)
                page.goto(served.url)
                page.wait_for_selector("html[data-ready]")
                for index, offset in ((0, "1.5"), (3, "-2")):
                    page.locator("#rows input[type=range]").nth(index).fill(offset)
                page.wait_for_timeout(4000)
                if scheme == "dark":
                    page.evaluate("window.scrollTo(0, document.getElementById('rows').offsetTop - 240)")
                    page.wait_for_timeout(500)
                    save(page, "phone")
                    continue
                save(page, "change")
                show(page, "Pictures")
                for side, seeds in GLASSES.items():
                    for seed in seeds:
                        page.get_by_role("button", name=f"Mark seed {seed} as {side}", exact=True).click()
                page.locator("#mark-name").fill("glasses")
                page.evaluate("document.activeElement.blur(), window.scrollTo(0, 0)")
                save(page, "pictures")
                show(page, "Blend")
                page.locator("#mix").fill("50")
                page.wait_for_timeout(2000)
                save(page, "blend")
                show(page, "Save")
                save(page, "save")
            browser.close()
    finally:
        served.close()


if __name__ == "__main__":
    main(*sys.argv[1:2] or [MODEL])
