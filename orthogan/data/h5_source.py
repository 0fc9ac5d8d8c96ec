"""Images in an HDF5 file, read as they are needed. Needs the extra ``h5``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.row_file import RowFile, consecutive
from orthogan.data.stored_source import StoredSource
from orthogan.errors import UserError, install


class H5Contents(NamedTuple):
    """The image data set's name and length, whether its pixels are 0 and 1, and the annotations, if any.

    ``rows`` and ``shape``: where its images lie one after the other, as they are; None for chunks and compression.
    """

    key: str
    length: int
    binary: bool
    annotation: np.ndarray | None
    rows: RowFile | None = None
    shape: tuple[int, ...] = ()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"reading .h5 files needs h5py: {install('h5')}") from error
    return h5py


def _open(path: Path) -> Any:
    try:
        return _h5py().File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened as an HDF5 file ({error})") from error


def read_h5(path: Path, image_keys: Sequence[str], label_keys: Sequence[str]) -> H5Contents:
    """Look into an HDF5 file without reading its images. Raises UserError when it holds none."""
    with _open(path) as file:
        key = next((k for k in image_keys if k in file), None)
        if key is None:
            wanted = " or ".join(map(repr, image_keys))
            raise UserError(f"{path}: has no data set {wanted}; it holds {', '.join(sorted(file))}")
        images = file[key]
        label_key = next((k for k in label_keys if k in file), None)
        annotation = None if label_key is None else np.asarray(file[label_key])
        head = images[: min(64, len(images))]
        # dSprites stores zeros and ones, under the name "imgs".
        binary = key == "imgs" and head.size > 0 and head.max() <= 1
        return H5Contents(key, len(images), bool(binary), annotation, _rows(path, images), images.shape[1:])


def _rows(path: Path, images: Any) -> RowFile | None:
    """The plain rows of a data set that is stored as one block of bytes in this very file."""
    offset = images.id.get_offset()  # None for chunks, and for what was never written
    if offset is None or images.dtype != np.uint8 or images.external is not None or not len(images):
        return None
    rows = RowFile(path, offset=offset, count=len(images), row_bytes=math.prod(images.shape[1:]))
    last = len(images) - 1
    try:  # a layout that is not understood is left to HDF5
        same = np.array_equal(rows.read(np.array([last])).ravel(), images[last].ravel())
    except UserError:
        return None
    return rows if same else None


class H5Source(StoredSource):
    """The images ``contents.key`` of an HDF5 file; opened once a process, since handles do not survive a fork.

    A file whose chunks hold many images (3dshapes as published) is slow to read in random order.
    """

    def __init__(
        self, path: Path, contents: H5Contents, resolution: int, channels: int, annotation: dict[str, Any]
    ) -> None:
        super().__init__(path, contents.length, resolution, channels, annotation, key=contents.key)
        self.contents = contents
        self._file: Any = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_process": -1}

    def stored(self, indices: np.ndarray) -> np.ndarray:
        rows = self.contents.rows
        images = self._chunks(indices) if rows is None else rows.read(indices).reshape(-1, *self.contents.shape)
        return images * np.uint8(255) if self.contents.binary else images

    def _chunks(self, indices: np.ndarray) -> np.ndarray:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _open(self.path), os.getpid()
        images = self._file[self.contents.key]
        if consecutive(indices):
            return images[int(indices[0]) : int(indices[-1]) + 1]
        # In the order of the file, so that a chunk is unpacked once; one by one, since HDF5 takes ten times as long
        # over a list of places.
        stored = np.empty((len(indices), *images.shape[1:]), images.dtype)
        for place in np.argsort(indices, kind="stable"):
            stored[place] = images[int(indices[place])]
        return stored
