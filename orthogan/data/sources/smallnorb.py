"""SmallNORB (LeCun, Huang & Bottou 2004): 50 gray toys of 5 categories at given angles and lightings.

Each half is three files in a simple matrix format. ``-dat``: uint8 (N, 2, 96, 96), a pair of cameras; ``-cat``: int32
(N,), the category; ``-info``: int32 (N, 4): instance, elevation, azimuth / 10 degrees (so even), lighting.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orthogan.data.factors import check_factors, known_factors
from orthogan.data.formats.matrices import plain_or_gzipped, read_norb
from orthogan.data.resize import TRANSFORM
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import user_path

STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
NAMES = ("category", "instance", "elevation", "azimuth", "lighting")
SIZES = (5, 10, 9, 18, 6)
CATEGORIES = ("animal", "human", "plane", "truck", "car")


@DATA_SOURCES.register("smallnorb")
class SmallNORB(DataSource):
    """The images of the first camera, in memory and in the order of the files; the class is the category.

    ``path``: the folder of the six files, gzipped or not. ``split``: train or test, 24,300 images each, or all (train,
    then test). Instances keep their published numbers, 4 6 7 8 9 in train and 0 1 2 3 5 in test, so each
    half is a grid with holes and only all is a full one: ``FactorGrid(source, occurring=True)`` closes them.
    """

    path = "required"
    splits = ("train", "test", "all")
    factors = True

    def open(self, data: DataRequest) -> ArraySource:
        """Open the images of one split or both. Raises UserError naming the file and what was expected."""
        folder = user_path(data.path or "")
        halves = [_half(folder, part, data) for part in STEMS if data.split in (part, "all")]
        images, factors = zip(*halves, strict=True)
        note = known_factors(np.concatenate(factors), NAMES, SIZES, label="category", class_names=CATEGORIES)
        return ArraySource(f"smallnorb-{data.split}", np.concatenate(images), **note._asdict(), transform=TRANSFORM)


def _half(folder: Path, part: str, data: DataRequest) -> tuple[np.ndarray, np.ndarray]:
    """Return resized images and factors int (N, 5)."""
    files = {kind: _find(folder, f"{STEMS[part]}-{kind}.mat") for kind in ("dat", "cat", "info")}
    pairs, category, info = (read_norb(file) for file in files.values())
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
            "are training and test files swapped?"
        )
    # A copy of one camera; a view would keep both in memory.
    return data.fit(np.ascontiguousarray(pairs[:, 0]), files["dat"]), factors


def _find(folder: Path, name: str) -> Path:
    if (file := plain_or_gzipped(folder / name)) is None:
        raise UserError(
            f"{folder}: neither {name} nor {name}.gz exists; data.path must name the folder with the six files of "
            "SmallNORB"
        )
    return file
