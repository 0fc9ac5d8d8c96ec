"""Cars3D (Reed et al. 2015, "Deep Visual Analogy-Making"): 183 cars seen from 24 azimuths at 4 elevations.

Published as ``nips2015-analogy-data.tar.gz`` with one ``data/cars/car_..._mesh.mat`` a car, whose ``im`` is uint8
(128, 128, 3, 24, 4): rows, columns, RGB, azimuth, elevation. Images and factors here run as everybody counts them:
elevation, azimuth, object, the object fastest, which is not the order of the file's axes.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import loadmat

from orthogan.data.arrays import ArraySource
from orthogan.data.factor_files import TRANSFORM, annotation, full_grid
from orthogan.data.folder import Form
from orthogan.data.resize import fit_arrays
from orthogan.errors import UserError

ARCHIVE = "nips2015-analogy-data.tar.gz"
NAMES = ("elevation", "azimuth", "object")
SIZES = (4, 24, 183)
BROKEN_TAR = (tarfile.TarError, OSError, EOFError, zlib.error)


def open_cars3d(path: str | Path, form: Form) -> ArraySource:
    """All 17,568 images, in memory; the class is the car, named as its file.

    ``path``: the archive, plain or compressed; a folder that holds it; or the unpacked folder, with ``data/cars`` or
    ``cars`` in it or itself full of the .mat files. Cars are numbered by their sorted file names, since the order of
    a listing differs from machine to machine. Raises UserError naming the file and what was expected.
    """
    place = _place(Path(path).expanduser())
    names = _names(place)
    if len(names) != SIZES[2]:
        raise UserError(f"{place}: holds {len(names)} .mat files of cars, expected {SIZES[2]}; unpack or copy it again")
    number = {name: k for k, name in enumerate(names)}
    images = np.empty((*SIZES, form.channels, form.resolution, form.resolution), np.uint8)
    for name, content in _contents(place, number):
        where = f"{place}/{name}"
        # (row, column, RGB, azimuth, elevation) -> (elevation, azimuth, row, column, RGB)
        views = _mesh(where, content).transpose(4, 3, 0, 1, 2)
        flat = np.ascontiguousarray(views).reshape(-1, *views.shape[2:])
        fitted = fit_arrays(flat, resolution=form.resolution, channels=form.channels, name=where)
        images[:, :, number[name]] = fitted.reshape(*SIZES[:2], *fitted.shape[1:])
    cars = [PurePosixPath(name).stem for name in names]
    note = annotation(full_grid(SIZES), NAMES, SIZES, label="object", class_names=cars)
    return ArraySource("cars3d", images.reshape(-1, *images.shape[3:]), **note._asdict(), transform=TRANSFORM)


def _place(path: Path) -> Path:
    """The archive or the folder that holds the cars' files."""
    if path.is_file():
        return path
    for folder in (path / "data" / "cars", path / "cars", path):
        if folder.is_dir() and any(_is_car(file.name) for file in folder.iterdir()):
            return folder
    if (path / ARCHIVE).is_file():
        return path / ARCHIVE
    raise UserError(f"{path}: no cars there; data.path must name {ARCHIVE} or the folder 'cars' unpacked from it")


def _is_car(name: str) -> bool:
    return name.endswith(".mat") and not name.startswith(".")


def _names(place: Path) -> list[str]:
    """Sorted names, relative to ``place``. The archive has other .mat files too: only its folder ``cars`` counts."""
    if place.is_dir():
        return sorted(file.name for file in place.iterdir() if _is_car(file.name))
    try:
        with tarfile.open(place, "r:*") as archive:
            files = [PurePosixPath(member.name) for member in archive if member.isfile()]
    except BROKEN_TAR as error:
        raise UserError(f"{place}: cannot be read ({error}), expected {ARCHIVE}; copy or download it again") from error
    return sorted(str(file) for file in files if file.parent.name == "cars" and _is_car(file.name))


def _contents(place: Path, wanted: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the wanted files, in the order in which they lie, since an archive cannot go back."""
    if place.is_dir():
        for name in wanted:
            yield name, (place / name).read_bytes()
        return
    try:
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if name in wanted and (file := archive.extractfile(member)) is not None:
                    yield name, file.read()
    except BROKEN_TAR as error:
        raise UserError(f"{place}: is damaged ({error}); copy or download it again") from error


def _mesh(where: str, content: bytes) -> np.ndarray:
    """The array ``im`` of one car. Raises UserError for another shape or type."""
    try:
        images = loadmat(io.BytesIO(content), variable_names=["im"])["im"]
    except Exception as error:  # what scipy's reader raises for a damaged file has no common base
        raise UserError(f"{where}: has no readable array 'im' ({error}); copy or download it again") from error
    azimuths_elevations = (SIZES[1], SIZES[0])
    if images.ndim != 5 or images.shape[2:] != (3, *azimuths_elevations) or images.dtype != np.uint8:
        raise UserError(f"{where}: 'im' is {images.dtype} {images.shape}, expected uint8 (128, 128, 3, 24, 4)")
    return images
