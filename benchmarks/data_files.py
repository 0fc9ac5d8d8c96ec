"""The data sets of ``benchmarks.data``: rows of noise in one large file, and folders of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

PIECE = 1 << 24  # bytes per write


def write_rows(path: Path, side: int, nbytes: int) -> int:
    """An ``.npy`` file of uint8 (N, side, side, 3) noise of about ``nbytes`` bytes; returns N.

    No more than one piece is in memory at a time. An existing file of the right size is kept.
    """
    row = side * side * 3
    count = max(64, nbytes // row)
    if path.exists() and path.stat().st_size > count * row:
        return count
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        rng = np.random.default_rng(side)
        for start in tqdm(range(0, count * row, PIECE), desc=path.name, leave=False, disable=None):
            file.write(rng.integers(0, 256, min(PIECE, count * row - start), np.uint8).tobytes())
    return count


def copy_to_h5(path: Path, rows: Path, chunked: bool) -> None:
    """The images of an ``.npy`` file as an ``.h5`` file, in one block or in chunks of one image."""
    import h5py  # an optional dependency of orthogan

    images = np.load(rows, mmap_mode="r")
    if path.exists() and path.stat().st_size > images.nbytes:
        return
    with h5py.File(path, "w") as file:
        chunks = (1, *images.shape[1:]) if chunked else None
        data = file.create_dataset("images", images.shape, np.uint8, chunks=chunks)
        for start in range(0, len(images), 4096):
            data[start : start + 4096] = images[start : start + 4096]


def write_pictures(folder: Path, ending: str, size: tuple[int, int], count: int) -> None:
    """``count`` pictures of (width, height) pixels, smooth with some noise, like photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.iterdir())) >= count:
        return
    rng = np.random.default_rng(0)
    for number in tqdm(range(count), desc=str(folder.name), leave=False, disable=None):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, np.float32) + rng.normal(0, 6, (size[1], size[0], 3))
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:06d}.{ending}", quality=90)  # PNG does not have a quality setting
