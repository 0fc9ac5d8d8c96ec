"""Safe reading of .npy and .npz files: no pickles, size checks before unpacking, and helpful errors."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import check_regular, open_regular, parsing, printable

# A larger array that is compressed more than dSprites (1 to 115) is treated as an attack.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200
PIECE = 1 << 24  # read at a time [bytes]


class Header(NamedTuple):
    """The header of an .npy file; ``start`` is the position of the first value [bytes]."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Size of the values [bytes]."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], where: object) -> Header:
    """Read the header of an .npy; ``file`` is then at the first value. Raises UserError naming ``where``."""
    with parsing(where, "a NumPy array"):
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        raise UserError(f"{printable(where)}: contains pickled objects, which are never loaded; save plain arrays")
    if any(length < 0 for length in shape):
        raise UserError(f"{printable(where)}: has the invalid shape {shape}; copy or download it again")
    return Header(shape, dtype, fortran, start)


def _values(file: IO[bytes], header: Header, available: int, where: object) -> np.ndarray:
    """Read the array after ``header``; ``available``: number of bytes of header and values in the file."""
    if header.start + header.nbytes > available:
        raise UserError(
            f"{printable(where)}: has {max(available - header.start, 0)} bytes of values, but its header says "
            f"{header.dtype} {header.shape}; copy or download it again"
        )
    with parsing(where, "a NumPy array"):
        data = bytearray()
        while piece := file.read(min(header.nbytes - len(data), PIECE)):
            data += piece
        file.read(1)  # a zip compares its checksum at the end
        return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the array of an .npy file. Raises UserError naming the file."""
    size = check_regular(path)
    with open_regular(path) as file:
        return _values(file, read_header(file, path), size, path)


class Npz:
    """The arrays of an .npz, checked before they are read; use it in a ``with`` statement.

    Raises UserError, here and in every method, naming the file and the array.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_regular(path)
        with parsing(path, "an .npz file of NumPy"):
            self._archive = zipfile.ZipFile(self.path)
        self.keys = sorted(n.removesuffix(".npy") for n in self._archive.namelist() if n.endswith(".npy"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def key(self, wanted: Sequence[str]) -> str:
        """Return the first of the names ``wanted`` in the file."""
        for key in wanted:
            if key in self.keys:
                return key
        raise UserError(
            f"{printable(self.path)}: has no array {' or '.join(map(repr, wanted))}; "
            f"it holds {printable(', '.join(self.keys[:10])) or 'no arrays'}"
        )

    def open(self, key: str) -> tuple[IO[bytes], Header]:
        """Open an array at its first value, for reading in pieces; also returns its checked header."""
        info = self._archive.getinfo(f"{key}.npy")
        where = f"{self.path}: {key!r}"
        with parsing(where, "a NumPy array"):
            member = self._archive.open(info)
        header = read_header(member, where)
        if header.start + header.nbytes != info.file_size:
            raise UserError(
                f"{printable(where)} is truncated: it has {max(info.file_size - header.start, 0)} bytes, "
                f"expected {header.dtype} {header.shape}; copy or download it again"
            )
        if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
            raise UserError(
                f"{printable(where)} unpacks from {info.compress_size >> 10} KiB to {info.file_size >> 20} MiB and "
                "is rejected as a possible attack; if the file is yours, save it with numpy.savez"
            )
        return member, header

    def header(self, key: str) -> Header:
        """Return shape and type of an array, without its values."""
        member, header = self.open(key)
        member.close()
        return header

    def read(self, key: str) -> np.ndarray:
        """Read an array."""
        member, header = self.open(key)
        with member:
            return _values(member, header, header.start + header.nbytes, f"{self.path}: {key!r}")

    def offset(self, key: str) -> int | None:
        """Return the position of the first value of an array in the file [bytes], None if it is compressed."""
        info = self._archive.getinfo(f"{key}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        start = self.header(key).start
        with open_regular(self.path) as file:
            file.seek(info.header_offset + 26)  # the lengths of two fields of the zip's own header
            lengths = file.read(4)
        return info.header_offset + 30 + sum(int.from_bytes(lengths[k : k + 2], "little") for k in (0, 2)) + start
