"""Draws the pictures of docs/guides/latent.md from the shipped models; see also docs/explore_pictures.py.

python docs/latent_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import orthogan
from orthogan.latent import contact_sheet, native_directions, render, traverse

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SPRITES, FASHION = "sprites-colour-eigengan", "fashion-mnist-eigengan"
LIVELY = [6, 7, 8, 12, 13, 14]  # of the sprites: the strongest three of two subspaces


def load(name: str) -> orthogan.Generator:
    return orthogan.load(ROOT / "pretrained" / f"{name}.safetensors")


def main() -> None:
    sprites, fashion = load(SPRITES), load(FASHION)
    rows = traverse(sprites, native_directions(sprites), dims=LIVELY, steps=9, seed=5, control=1)
    render(rows, IMAGES / "latent-rows.png", heatmap=True)
    found = native_directions(fashion)
    render(contact_sheet(fashion, found, dims=[12, 13, 14], seeds=[0, 1, 5]), IMAGES / "latent-sheet.png")


if __name__ == "__main__":
    main()
