"""Draws the pictures of docs/guides/latent.md from the shipped models; needs gradio, playwright and Chromium.

python docs/latent_pictures.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

import orthogan
from orthogan.latent import contact_sheet, native_directions, render, traverse
from orthogan.latent.explorer.page import explore

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SPRITES, FASHION = "sprites-colour-eigengan", "fashion-mnist-eigengan"
LIVELY = [6, 7, 8, 12, 13, 14]  # of the sprites: the strongest three of two subspaces


def load(name: str) -> orthogan.Generator:
    return orthogan.load(ROOT / "pretrained" / f"{name}.safetensors")


def screenshot(path: Path) -> None:
    """The live page with two of its sliders moved."""
    net = load(SPRITES)
    served = explore(net, native_directions(net), title=f"orthogan: {SPRITES}", port=0, block=False)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"))
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(served.url)
            sliders = page.locator("input[type=range]")
            sliders.nth(3).wait_for(timeout=60_000)
            for index, offset in ((1, "1.5"), (4, "-2")):  # the first is the truncation
                sliders.nth(index).fill(offset)
                page.wait_for_timeout(2000)
            page.wait_for_timeout(4000)
            page.screenshot(path=path)
            browser.close()
    finally:
        served.close()


def main() -> None:
    sprites, fashion = load(SPRITES), load(FASHION)
    rows = traverse(sprites, native_directions(sprites), dims=LIVELY, steps=9, seed=5, control=1)
    render(rows, IMAGES / "latent-rows.png", heatmap=True)
    found = native_directions(fashion)
    render(contact_sheet(fashion, found, dims=[12, 13, 14], seeds=[0, 1, 5]), IMAGES / "latent-sheet.png")
    screenshot(IMAGES / "latent-explorer.png")


if __name__ == "__main__":
    main()
