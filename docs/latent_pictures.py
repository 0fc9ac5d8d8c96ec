"""Draws the pictures of docs/guides/latent.md from the shipped models; see also docs/explore_pictures.py.

python docs/latent_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import orthogan
from orthogan.latent import contact_sheet, native_directions, render, traverse
from orthogan.latent.discovery import find_directions

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PORTRAITS, FASHION = "faces-eigengan", "fashion-mnist-srngan"
LIVELY = [12, 13, 14, 15]  # of the portraits: the dimensions of the third subspace that change the picture


def main() -> None:
    portraits, fashion = orthogan.load(PORTRAITS), orthogan.load(FASHION)
    rows = traverse(portraits, native_directions(portraits), dims=LIVELY, steps=9, seed=0, control=1)
    render(rows, IMAGES / "latent-rows.png", heatmap=True)
    found = find_directions(fashion, "sefa")
    render(contact_sheet(fashion, found, dims=[0, 2, 4], seeds=[0, 2, 7]), IMAGES / "latent-sheet.png")


if __name__ == "__main__":
    main()
