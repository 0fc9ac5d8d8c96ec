"""SmallNORB (LeCun, Huang & Bottou 2004): 50 grey toys of 5 categories under chosen angles and lights.

Each half is three files in a simple matrix format, little-endian: int32 magic number (the type), int32 number of axes,
their int32 lengths (at least three are written, of which the superfluous are to be ignored), the values, last axis
fastest. ``-dat``: uint8 (N, 2, 96, 96), a pair of cameras; ``-cat``: int32 (N,), the category; ``-info``: int32
(N, 4): instance, elevation, azimuth / 10 degrees (so even), lighting.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.resize import fit_arrays
from orthogan.data.source import check_split
from orthogan.data.sources.arrays import ArraySource
from orthogan.data.sources.factor_files import TRANSFORM, annotation, check_factors
from orthogan.data.sources.folder import Form
from orthogan.errors import UserError
from orthogan.io.read import exists, printable, read_packed, user_path

LONGEST_HEADER = 8 + 4 * 8  # [bytes]
STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
NAMES = ("category", "instance", "elevation", "azimuth", "lighting")
SIZES = (5, 10, 9, 18, 6)
CATEGORIES = ("animal", "human", "plane", "truck", "car")
# As unsigned bytes: read as signed ones, as disentanglement_lib does, bright pixels become negative.
TYPES = {
    0x1E3D4C51: np.dtype("<f4"),
    0x1E3D4C53: np.dtype("<f8"),
    0x1E3D4C54: np.dtype("<i4"),
    0x1E3D4C55: np.dtype("u1"),
    0x1E3D4C56: np.dtype("<i2"),
}


def open_smallnorb(path: str | Path, form: Form, *, split: str = "train") -> ArraySource:
    """The pictures of the first camera, in memory and in the files' order; the class is the category.

    ``path``: the folder of the six files, gzipped or not. ``split``: train or test, 24,300 images each, or all, the
    one after the other. Instances keep their published numbers, 4 6 7 8 9 in train and 0 1 2 3 5 in test, so each
    half is a grid with holes and only all is a full one: ``FactorGrid(source, occurring=True)`` closes them.
    Raises UserError naming the file and what was expected.
    """
    check_split("smallnorb", split, ("train", "test", "all"))
    folder = user_path(path)
    images, factors = zip(*(_half(folder, part, form) for part in STEMS if split in (part, "all")), strict=True)
    note = annotation(np.concatenate(factors), NAMES, SIZES, label="category", class_names=CATEGORIES)
    return ArraySource(f"smallnorb-{split}", np.concatenate(images), **note._asdict(), transform=TRANSFORM)


def _half(folder: Path, part: str, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Fitted images and factors int (N, 5)."""
    files = {kind: _find(folder, f"{STEMS[part]}-{kind}.mat") for kind in ("dat", "cat", "info")}
    pairs, category, info = (read_matrix(file) for file in files.values())
    count = len(category)
    for kind, array, dtype, shape in (
        ("cat", category, "int32", (count,)),
        ("info", info, "int32", (count, 4)),
        ("dat", pairs, "uint8", (count, 2, *pairs.shape[-2:])),
    ):
        if array.dtype != dtype or array.shape != shape:
            words = "(N, 2, 96, 96)" if kind == "dat" else shape
            raise UserError(
                f"{files[kind]}: holds {array.dtype} {array.shape}, expected {dtype} {words}, N={count} as in the -cat"
            )
    if (info[:, 2] % 2).any():
        raise UserError(f"{files['info']}: has odd azimuths (column 2), expected 0, 2, 4 ... 34")
    factors = np.column_stack([category, info])
    factors[:, 3] //= 2
    check_factors(files["cat"], factors[:, :1], NAMES[:1], SIZES[:1])
    check_factors(files["info"], factors[:, 1:], NAMES[1:], SIZES[1:])
    strange = np.setdiff1d(factors[:, 1], INSTANCES[part])
    if len(strange):
        raise UserError(
            f"{files['info']}: has the instance {strange[0]}, expected {', '.join(map(str, INSTANCES[part]))}; "
            "are training and testing files exchanged?"
        )
    # A copy of one camera, lest the view keep both alive.
    first = np.ascontiguousarray(pairs[:, 0])
    fitted = fit_arrays(first, resolution=form.resolution, channels=form.channels, name=str(files["dat"]))
    return fitted, factors


def _find(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if exists(file, "file"):
            return file
    raise UserError(f"{folder}: lacks {name} and {name}.gz; data.path must name the folder of SmallNORB's six files")


def read_matrix(path: Path) -> np.ndarray:
    """The array in a file of the matrix format. Raises UserError naming a file that is damaged."""

    def size(header: bytes) -> int:
        dtype, shape, start = _layout(header, path)
        return start + max(0, math.prod(shape)) * dtype.itemsize

    data = read_packed(path, LONGEST_HEADER, size)
    dtype, shape, start = _layout(data, path)
    body = len(data) - start
    if min(shape) < 1 or body != math.prod(shape) * dtype.itemsize:
        raise UserError(
            f"{printable(path)}: has {body} bytes after its header, expected {dtype} {shape}; download it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _layout(data: bytes | bytearray, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and length of the header [bytes]. Raises UserError for what is no such file."""
    # A vector's header has three lengths too, so none is shorter than 20 bytes.
    magic, axes = struct.unpack_from("<Ii", data) if len(data) >= 20 else (0, 0)
    start = 8 + 4 * max(3, axes)
    if magic not in TYPES or not 1 <= axes <= 8 or len(data) < start:
        raise UserError(
            f"{printable(path)}: is no SmallNORB matrix: {magic:#x}, expected 0x1e3d4c55 (bytes) or 0x1e3d4c54 (int32)"
        )
    shape = struct.unpack_from(f"<{axes}i", data, 8)
    return TYPES[magic], shape, start
