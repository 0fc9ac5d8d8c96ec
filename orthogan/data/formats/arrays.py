"""Images stored as one array in a .npy or .npz file that may be larger than memory, and code shared with .h5."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from orthogan.data.formats.levels import check_deep, check_unused, to_eight_bits
from orthogan.data.resize import TRANSFORM, check_images, is_deep
from orthogan.data.source import Annotation, ArraySource, DataRequest, ImageSource
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash, hash_files
from orthogan.io.numpy_files import Npz, read_header
from orthogan.io.read import check_regular, exists, open_regular, parsing, printable, user_path
from orthogan.progress import progress_bar
from orthogan.size import sides, size_key

log = logging.getLogger("orthogan.data")

MOST_IMAGES = 1 << 27  # in one file; a damaged header may state any number
AT_ONCE = 1 << 26  # stored bytes that are read at a time when reading all images


def consecutive(indices: np.ndarray) -> bool:
    """Whether ``indices`` (n,) are consecutive; False if there are none."""
    return bool(len(indices) and indices[-1] - indices[0] == len(indices) - 1 and np.all(np.diff(indices) == 1))


class RowFile:
    """``count`` consecutive rows of ``row_bytes`` bytes in the file ``path``, starting at byte ``offset``.

    Rows are read in any order at the speed of the disk. Nothing is cached in this process, only in the page cache of
    the system. May be used from forked and spawned processes and from several threads.
    """

    def __init__(self, path: Path, *, offset: int, count: int, row_bytes: int) -> None:
        self.path, self.offset, self.count, self.row_bytes = path, offset, count, row_bytes
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows at integers (n,) in [0, count), in any order: uint8 (n, row_bytes), owned by the caller.

        Raises UserError when the file cannot be read or ends too early.
        """
        if not hasattr(os, "preadv"):  # Windows
            mapped = np.memmap(self.path, np.uint8, "r", self.offset, (self.count, self.row_bytes))
            return np.asarray(mapped[indices])
        rows = np.empty((len(indices), self.row_bytes), np.uint8)
        if not len(rows):
            return rows
        try:
            if self._file is None:  # each read passes its position, so a fork may share the handle
                self._file = self.path.open("rb", buffering=0)
            handle = self._file.fileno()
            if consecutive(indices):
                self._fill(handle, rows.reshape(-1).data, self.offset + int(indices[0]) * self.row_bytes)
                return rows
            places = (self.offset + np.asarray(indices, np.int64) * self.row_bytes).tolist()
            if hasattr(os, "posix_fadvise"):  # not on macOS
                # Announcing all rows before reading the first one lets the disk fetch many at once.
                for place in places:
                    os.posix_fadvise(handle, place, self.row_bytes, os.POSIX_FADV_WILLNEED)
            for row, place in zip(rows, places, strict=True):
                self._fill(handle, row.data, place)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        return rows

    def _fill(self, handle: int, target: memoryview, place: int) -> None:
        """Fill all of ``target``; the system may return less than requested."""
        while len(target):
            got = os.preadv(handle, [target], place)
            if got == 0:
                raise UserError(
                    f"{self.path}: file is truncated: it ends after {place} bytes, within the images; copy it again"
                )
            target, place = target[got:], place + got


class StoredArray(NamedTuple):
    """An array of images in a file.

    Args:
        path: the file.
        key: name of the array, which becomes part of the fingerprint.
        shape, dtype: of the array.
        files: all files that hold its values.
        rows: its images as rows of a file; None if they are stored in chunks or compressed.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    files: Sequence[Path]
    rows: RowFile | None


def existing_file(path: str | Path | None, published: str) -> Path:
    """Return ``path`` if it is a regular file; otherwise raise a UserError that says what ``data.path`` must name."""
    path = user_path(path or "")
    if not exists(path, "file"):
        what = "this is not a regular file" if path.exists() else "there is no such file"
        raise UserError(f"{printable(path)}: {what}; data.path must name {published}")
    return path


def npy_array(path: Path) -> StoredArray:
    """Open the array in an .npy file. Raises UserError for Fortran order, other arrays, and truncated files."""
    size = check_regular(path)
    with open_regular(path) as file:
        header = read_header(file, path)
    if header.fortran and len(header.shape) > 1:
        raise UserError(
            f"{printable(path)}: the array is stored in Fortran order; save numpy.ascontiguousarray(array) instead"
        )
    if header.start + header.nbytes > size:
        raise UserError(
            f"{printable(path)}: file is truncated: it ends within the images {header.dtype} {header.shape}; copy it "
            "again"
        )
    check_images(header.shape, header.dtype, str(path), deep=True)
    rows = _rows(path, header.start, header.shape, header.dtype.itemsize)
    return StoredArray(path, "npy", header.shape, header.dtype, [path], rows)


def _rows(path: Path, offset: int, shape: tuple[int, ...], itemsize: int = 1) -> RowFile:
    return RowFile(path, offset=offset, count=shape[0], row_bytes=math.prod(shape[1:]) * itemsize)


def npz_array(path: Path, key: str) -> StoredArray:
    """Locate the images ``key`` of an .npz without unpacking them. Raises UserError if there are none, or not uint8."""
    with Npz(path) as archive:
        header, offset = archive.header(archive.key([key])), archive.offset(key)
    shape, dtype = header.shape, header.dtype
    if dtype != np.uint8 or len(shape) < 3 or math.prod(shape) < 1:
        raise UserError(
            f"{printable(path)}: {key!r} is {dtype} {shape}, expected uint8 pictures (N, H, W) or (N, H, W, 3)"
        )
    if header.fortran:
        raise UserError(
            f"{printable(path)}: {key!r} is stored in Fortran order; save numpy.ascontiguousarray(array) instead"
        )
    return StoredArray(path, key, shape, dtype, [path], None if offset is None else _rows(path, offset, shape))


class StoredSource(ImageSource):
    """The images of ``array``, uint8 or bool (N, H, W) or (N, H, W, 1 to 16), read as they are needed.

    ``name``: default is the name of the file. ``binary``: pixels are 0 and 1 and become 0 and 255. ``deep``: uint16 and
    floats are accepted too, with ``value_range`` as black and white (``formats.levels``). Raises UserError if there are
    no images, or other arrays.
    """

    any_order = True  # whether images can be read in any order

    def __init__(
        self,
        array: StoredArray,
        data: DataRequest,
        note: Annotation,
        *,
        name: str = "",
        binary: bool = False,
        deep: bool = False,
        value_range: Sequence[float] | None = None,
    ) -> None:
        check_images(array.shape, array.dtype, str(array.path), deep=deep)
        length = array.shape[0]
        if length == 0:
            raise UserError(f"{printable(array.path)}: contains no images")
        check_count(array.path, length)
        self.name = name or printable(array.path.stem)
        self.array, self.data, self.note, self.binary = array, data, note, binary
        self.value_range = value_range
        self.resolution, self.channels = data.resolution, data.channels
        self.annotate(note, length)

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at ``indices`` as stored, (n, H, W) or (n, H, W, 1 to 16)."""
        assert self.array.rows is not None
        return self.array.rows.read(indices).view(self.array.dtype).reshape(-1, *self.array.shape[1:])

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the resized images at ``indices`` and their labels."""
        return self._fitted(self.stored(indices)), self.labels[indices]

    def _fitted(self, images: np.ndarray) -> np.ndarray:
        if self.binary:
            if images.max(initial=0) > 1:
                raise UserError(f"{self.array.path}: has pixels up to {images.max()}, expected 0 and 1")
            images = images * np.uint8(255)  # not divided by 255, a common mistake
        if is_deep(images.dtype):
            images = to_eight_bits(images, self.value_range, self.array.path)
        return self.data.fit(images, self.array.path)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all images in order as stored, some at a time."""
        for start, stop in self._bounds():
            yield self.stored(np.arange(start, stop))

    def _bounds(self) -> Iterator[tuple[int, int]]:
        step = max(1, AT_ONCE // (math.prod(self.array.shape[1:]) * self.array.dtype.itemsize))
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))

    def find_levels(self) -> None:
        """Check the values of uint16 and floats; set ``binary`` and warn if all pixels are 0 or 1 (uint8).

        Reads uint8 up to the first other pixel, and uint16 and floats as a whole, with a progress bar.
        """
        if is_deep(self.array.dtype):
            starts = progress_bar(list(self._bounds()), desc=f"checking {self.name}", unit=" parts", leave=False)
            check_deep(
                (self.stored(np.arange(*bounds)) for bounds in starts),
                self.array.dtype,
                self.value_range,
                self.array.path,
            )
            return
        check_unused(self.value_range, self.array.path, self.array.dtype)
        self.binary = self.array.dtype == np.uint8 and all(piece.max(initial=0) <= 1 for piece in self.pieces())
        if self.binary:
            warn_of_zeros_and_ones(self.array.path)

    def kept(self) -> ImageSource:
        """Return this source, or its images in memory if they take at most ``data.in_memory_limit`` bytes."""
        if self.nbytes > self.data.in_memory_limit:
            if self.any_order:
                return self
            path = self.array.path
            log.warning(
                "%s: the file is compressed, so all of it is kept in memory; save it with numpy.savez to read images "
                "as needed",
                path,
            )
        images = np.empty((len(self), self.channels, *sides(self.resolution)), np.uint8)
        start = 0
        for piece in self.pieces():
            images[start : start + len(piece)] = self._fitted(piece)
            start += len(piece)
        return ArraySource(self.name, images, **self.note._asdict(), transform=TRANSFORM)

    def fingerprint(self) -> str:
        """Return a hash of the content of the files, the annotations and the transform."""
        digest = ContentHash().text(TRANSFORM, size_key(self.resolution), self.channels, *self.class_names)
        if self.value_range is not None:
            digest.text(*self.value_range)
        digest.text(self.array.key, hash_files(self.array.files)).array(self.labels)
        for further in (self._factors, self.label_vectors):
            if further is not None:
                digest.array(further)
        return digest.hexdigest()


class PackedSource(StoredSource):
    """The images of a compressed .npz, which can only be read one after the other."""

    any_order = False

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all images in order, so that a large stored array is never in memory as a whole."""
        path, key, shape = self.array.path, self.array.key, self.array.shape
        with Npz(path) as archive:
            member, _ = archive.open(key)
            with member, parsing(f"{path}: {key!r}", "an array of pictures"):
                for start, stop in self._bounds():
                    piece = np.frombuffer(member.read(math.prod(shape[1:]) * (stop - start)), np.uint8)
                    yield piece.reshape(stop - start, *shape[1:])
                member.read(1)  # the checksum is compared at the end


def open_npz(array: StoredArray, data: DataRequest, note: Annotation, *, name: str, binary: bool) -> ImageSource:
    """Open the images of ``npz_array``: in memory, or read as needed if there are many and they are not compressed."""
    kind = PackedSource if array.rows is None else StoredSource
    return kind(array, data, note, name=name, binary=binary).kept()


def warn_of_zeros_and_ones(where: object) -> None:
    """Warn that uint8 pixels that are all 0 or 1 are read as black and white."""
    log.warning("%s: every pixel is 0 or 1, so 1 is read as white (255)", printable(where))


def check_count(path: Path, count: int) -> None:
    """Raise UserError for an implausible number of images in one file."""
    if count > MOST_IMAGES:
        raise UserError(f"{printable(path)}: claims to hold {count:,} images; at most {MOST_IMAGES:,} are supported")
