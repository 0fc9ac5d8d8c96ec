"""Images in an HDF5 file, read as needed. Requires the extra ``orthogan[h5]``.

A file may refer to other files. These references are followed only for the parts of a virtual data set, and only to
HDF5 files in the same folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.formats.arrays import RowFile, StoredArray, StoredSource, consecutive
from orthogan.errors import UserError, install
from orthogan.io.numpy_files import BOMB_BYTES, BOMB_RATIO
from orthogan.io.read import check_regular, parsing, printable

EXPECTED = "an HDF5 file of images"
LARGEST_CHUNK = 1 << 29  # a whole chunk is unpacked for each image [bytes]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading .h5 files needs h5py: {install('h5')}") from error
    return h5py


def _open(path: Path) -> Any:
    h5py = _h5py()
    check_regular(path)
    with parsing(path, EXPECTED):
        return h5py.File(path, "r")


def h5_array(path: Path, image_keys: Sequence[str]) -> StoredArray:
    """Locate the images of an HDF5 file without reading them. Raises UserError if there are none."""
    with _open(path) as file, parsing(path, EXPECTED):
        key = next((k for k in image_keys if k in file), None)
        if key is None:
            wanted = " or ".join(map(repr, image_keys))
            raise UserError(
                f"{printable(path)}: has no data set {wanted}; it holds {printable(', '.join(sorted(file)[:10]))}"
            )
        images, files = _data_set(path, file, key)
        if len(images.shape) < 3:
            raise UserError(f"{printable(path)}: {key!r} must be (N, H, W) or (N, H, W, 1 or 3), not {images.shape}")
        return StoredArray(path, key, images.shape, images.dtype, files, _rows(path, images))


def h5_annotation(path: Path, keys: Sequence[str], count: int) -> np.ndarray | None:
    """Read the first existing data set of ``keys``, which must have ``count`` rows of numbers; None if none exists."""
    with _open(path) as file, parsing(path, "an HDF5 file with annotations"):
        key = next((k for k in keys if k in file), None)
        if key is None:
            return None
        values, _ = _data_set(path, file, key)
        if not 1 <= len(values.shape) <= 2 or len(values) != count or values.dtype.kind not in "biuf":
            raise UserError(f"{printable(path)}: {count} images but {key!r} is {values.dtype} {values.shape}")
        return np.asarray(values)


def _data_set(path: Path, file: Any, key: str, *, virtual: bool = True) -> tuple[Any, list[Path]]:
    """Return the data set ``key`` and the files that hold its values, after checking that all of it is present.

    Raises UserError if it is not a data set, if values are in files other than HDF5 files of the same folder, were
    never written, or unpack to far more than the size of the file.
    """
    where = f"{printable(path)}: {key!r}"
    _check_links(where, file, key)
    found = file[key]
    if not isinstance(found, _h5py().Dataset) or not found.shape:
        raise UserError(f"{where} is not an array")
    if found.external:
        raise UserError(
            f"{where} takes its values from other files, which is not allowed; store them in the file itself"
        )
    if found.is_virtual:
        if not virtual:
            raise UserError(f"{where} is a virtual data set of virtual data sets, which is not supported")
        return found, _parts(path, where, found)
    size, stored = math.prod(found.shape) * found.dtype.itemsize, found.id.get_storage_size()
    if found.chunks is None:
        complete = stored >= size
    else:
        if math.prod(found.chunks) * found.dtype.itemsize > LARGEST_CHUNK:
            raise UserError(
                f"{where} is stored in chunks of {found.chunks}, which are too large; save it again with one image "
                "per chunk"
            )
        expected = math.prod(-(-length // chunk) for length, chunk in zip(found.shape, found.chunks, strict=True))
        complete = found.id.get_num_chunks() >= expected
    if not complete:
        raise UserError(f"{where} is {found.shape}, but part of it was never written; write the file again")
    if size > max(BOMB_BYTES, BOMB_RATIO * stored):
        raise UserError(
            f"{where} unpacks from {stored >> 10} KiB to {size >> 20} MiB and is rejected as a possible attack; if "
            "the file is yours, save it without compression"
        )
    return found, [path]


def _check_links(where: str, group: Any, key: str, *, most: int = 16) -> None:
    """Raise UserError if the path to ``key`` leads out of the file."""
    h5py = _h5py()
    for part in key.strip("/").split("/"):
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink) or most == 0:
            raise UserError(
                f"{where} is a link to another file, which is not allowed; store the array in the file itself"
            )
        if isinstance(link, h5py.SoftLink):
            _check_links(where, group.file if link.path.startswith("/") else group, link.path, most=most - 1)
        group = group[part]


def _parts(path: Path, where: str, found: Any) -> list[Path]:
    """Return the files of a virtual data set, all of which must exist beside ``path``."""
    files, mapped = [path], 0
    for source in found.virtual_sources():
        mapped += source.vspace.get_select_npoints()
        file = path if source.file_name == "." else path.parent / source.file_name
        if file.resolve().parent != path.resolve().parent or "%" in source.file_name:
            raise UserError(f"{where} takes values from {printable(file)}, which is not in the same folder")
        with _open(file) as part:
            files += _data_set(file, part, source.dset_name, virtual=False)[1]
    if mapped < math.prod(found.shape):
        raise UserError(
            f"{where}: its parts hold only {mapped} of {math.prod(found.shape)} values; write the file again"
        )
    return list(dict.fromkeys(files))


def _rows(path: Path, images: Any) -> RowFile | None:
    """Return the rows of a data set that is stored as one block of bytes in this file."""
    offset = images.id.get_offset()  # None for chunks and virtual data sets
    if offset is None or images.dtype != np.uint8 or not math.prod(images.shape):
        return None
    rows = RowFile(path, offset=offset, count=len(images), row_bytes=math.prod(images.shape[1:]))
    last = len(images) - 1
    try:  # unknown layouts are left to HDF5
        same = np.array_equal(rows.read(np.array([last])).ravel(), images[last].ravel())
    except UserError:
        return None
    return rows if same else None


class H5Source(StoredSource):
    """The images of ``h5_array``; the file is opened once per process, since handles do not survive a fork.

    A file whose chunks hold many images (3dshapes as published) is slow to read in random order.
    """

    _file: Any = None
    _process = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_process": -1}

    def stored(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at ``indices`` as stored."""
        if self.array.rows is not None:
            return super().stored(indices)
        with parsing(self.array.path, EXPECTED):
            return self._chunks(indices)

    def _chunks(self, indices: np.ndarray) -> np.ndarray:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _open(self.array.path), os.getpid()
        images = self._file[self.array.key]
        if consecutive(indices):
            return images[int(indices[0]) : int(indices[-1]) + 1]
        # In the order of the file, so that each chunk is unpacked once; one by one, since HDF5 takes ten times as long
        # for a list of indices.
        stored = np.empty((len(indices), *images.shape[1:]), images.dtype)
        for place in np.argsort(indices, kind="stable"):
            stored[place] = images[int(indices[place])]
        return stored
