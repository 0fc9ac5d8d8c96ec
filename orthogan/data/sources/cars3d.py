"""Cars3D (Reed et al. 2015, "Deep Visual Analogy-Making"): 183 cars seen from 24 azimuths and 4 elevations.

Published as ``nips2015-analogy-data.tar.gz`` with one ``data/cars/car_..._mesh.mat`` per car, whose ``im`` is uint8
(128, 128, 3, 24, 4): rows, columns, RGB, azimuth, elevation. Images and factors here use the common order: elevation,
azimuth, object, with the object varying fastest, which is not the order of the axes in the file.
"""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from orthogan.data.factors import full_grid, known_factors
from orthogan.data.resize import TRANSFORM
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import exists, parsing, read_error, read_regular, user_path

ARCHIVE = "nips2015-analogy-data.tar.gz"
LARGEST_CAR = 1 << 24  # one has 4.7 MB of pixels [bytes]
LARGEST_SIDE = 1024  # of a view [pixels]
NAMES = ("elevation", "azimuth", "object")
SIZES = (4, 24, 183)
BROKEN_TAR = (tarfile.TarError, OSError, EOFError, zlib.error)


@DATA_SOURCES.register("cars3d")
class Cars3D(DataSource):
    """All 17,568 images, in memory; the class is the car, named after its file.

    ``path``: the archive, plain or compressed; a folder that holds it; or the unpacked folder, which contains
    ``data/cars``, ``cars`` or the .mat files. Cars are numbered by sorted file names, since the order of a directory
    listing differs between machines.
    """

    path = "required"
    factors = True

    def open(self, data: DataRequest) -> ArraySource:
        """Open the images of the cars. Raises UserError naming the file and what was expected."""
        place = _place(user_path(data.path or ""))
        names = _names(place)
        if len(names) != SIZES[2]:
            raise UserError(
                f"{place}: holds {len(names)} .mat files of cars, expected {SIZES[2]}; unpack or copy it again"
            )
        number = {name: k for k, name in enumerate(names)}
        images = np.empty((*SIZES, data.channels, data.resolution, data.resolution), np.uint8)
        for name, content in _contents(place, number):
            # (row, column, RGB, azimuth, elevation) -> (elevation, azimuth, row, column, RGB)
            views = _mesh(f"{place}/{name}", content).transpose(4, 3, 0, 1, 2)
            fitted = data.fit(np.ascontiguousarray(views).reshape(-1, *views.shape[2:]), f"{place}/{name}")
            images[:, :, number[name]] = fitted.reshape(*SIZES[:2], *fitted.shape[1:])
        cars = [PurePosixPath(name).stem for name in names]
        note = known_factors(full_grid(SIZES), NAMES, SIZES, label="object", class_names=cars)
        return ArraySource("cars3d", images.reshape(-1, *images.shape[3:]), **note._asdict(), transform=TRANSFORM)


def _place(path: Path) -> Path:
    """Return the archive or the folder with the files of the cars."""
    if exists(path, "file"):
        return path
    for folder in (path / "data" / "cars", path / "cars", path):
        if exists(folder, "folder") and _cars_in(folder):
            return folder
    if exists(path / ARCHIVE, "file"):
        return path / ARCHIVE
    raise UserError(f"{path}: contains no cars; data.path must name {ARCHIVE} or the folder 'cars' unpacked from it")


def _cars_in(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _is_car(name))
    except OSError as error:
        raise read_error(folder, error) from error


def _is_car(name: str) -> bool:
    return name.endswith(".mat") and not name.startswith(".")


def _names(place: Path) -> list[str]:
    """Return sorted names relative to ``place``, of the folder ``cars`` only: the archive has other .mat files."""
    if place.is_dir():
        return _cars_in(place)
    try:
        with tarfile.open(place, "r:*") as archive:
            files = [PurePosixPath(member.name) for member in archive if member.isfile()]
    except BROKEN_TAR as error:
        raise UserError(f"{place}: cannot be read ({error}), expected {ARCHIVE}; copy or download it again") from error
    return sorted(str(file) for file in files if file.parent.name == "cars" and _is_car(file.name))


def _contents(place: Path, wanted: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of the wanted files in the order of the archive, which cannot be rewound."""
    if place.is_dir():
        for name in wanted:
            yield name, read_regular(place / name, LARGEST_CAR)
        return
    try:
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if name in wanted and (file := archive.extractfile(member)) is not None:
                    if member.size > LARGEST_CAR:
                        raise UserError(f"{place}: {name} is larger than {LARGEST_CAR >> 20} MiB; download it again")
                    yield name, file.read()
    except BROKEN_TAR as error:
        raise UserError(f"{place}: is damaged ({error}); copy or download it again") from error


def _mesh(where: str, content: bytes) -> np.ndarray:
    """Read the array ``im`` of one car. Raises UserError for another shape or type."""
    from scipy.io import loadmat, whosmat  # slow to import

    with parsing(where, "a .mat file with the array 'im'"):
        # Check before unpacking: the declared size may not fit into memory.
        found = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(content))}
        shape, kind = found.get("im", ((), "missing"))
        views = len(shape) == 5 and shape[2:] == (3, SIZES[1], SIZES[0])
        if not views or kind != "uint8" or max(shape) > LARGEST_SIDE:
            raise UserError(f"{where}: 'im' is {kind} {shape}, expected uint8 (128, 128, 3, 24, 4)")
        return loadmat(io.BytesIO(content), variable_names=["im"])["im"]
