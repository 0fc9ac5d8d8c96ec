"""The pictures at the top of README.md and of the site: ``python -m docs.readme_pictures``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import orthogan
from orthogan.drawing.grid import image_grid, save_png
from orthogan.latent import sample_images

IMAGES = Path(__file__).parent / "images"
MODEL, COLUMNS, ROWS, SCALE = "faces-srngan", 15, 4, 2
DIRECTIONS, BASE, RANGE = [0, 1, 5, 7], 7, 2.5


def main() -> None:
    """60 samples, and what four directions of the first layer do."""
    generator = orthogan.load(MODEL)
    images = sample_images(generator, list(range(COLUMNS * ROWS))).images
    walk = orthogan.traverse(generator, method="sefa", dims=DIRECTIONS, steps=COLUMNS, range=RANGE, seed=BASE)
    frames = np.concatenate(list(walk.frames))
    for name, shown in (("samples", images), ("traversal", frames)):
        save_png(image_grid(shown, columns=COLUMNS, scale=SCALE), IMAGES / f"readme-{name}.png")


if __name__ == "__main__":
    main()
