"""The pictures at the top of README.md and of the site: ``python -m docs.readme_pictures``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import orthogan
from orthogan.drawing.grid import image_grid, save_png
from orthogan.latent import native_directions, sample_images

IMAGES = Path(__file__).parent / "images"
COLUMNS, ROWS, SCALE = 15, 4, 2
AXES, BASE, RANGE = ["hair color", "skin", "glasses", "hair length"], 7, 2.5


def main() -> None:
    """60 samples of one model, and what four axes of another one do."""
    images = sample_images(orthogan.load("faces-srngan"), list(range(COLUMNS * ROWS))).images
    generator = orthogan.load("faces-infogan")
    axes = native_directions(generator)
    dims = [axes.names.index(name) for name in AXES]
    walk = orthogan.traverse(generator, axes, dims=dims, steps=COLUMNS, range=RANGE, seed=BASE)
    frames = np.concatenate(list(walk.frames))
    for name, shown in (("samples", images), ("traversal", frames)):
        save_png(image_grid(shown, columns=COLUMNS, scale=SCALE), IMAGES / f"readme-{name}.png")


if __name__ == "__main__":
    main()
