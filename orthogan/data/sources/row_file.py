"""Rows of equal length in one large file, read from any place at the speed of the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from orthogan.errors import UserError


def consecutive(indices: np.ndarray) -> bool:
    """Whether each of ``indices`` (n,) is the next of the one before it; not so for none."""
    return bool(len(indices) and indices[-1] - indices[0] == len(indices) - 1 and np.all(np.diff(indices) == 1))


class RowFile:
    """``count`` rows of ``row_bytes`` bytes, one after the other in the file ``path`` from byte ``offset`` on.

    Nothing of the file stays in this process: what was read is kept by the system's page cache, or not. May be used
    from forked and spawned processes and from several threads.
    """

    def __init__(self, path: Path, *, offset: int, count: int, row_bytes: int) -> None:
        self.path, self.offset, self.count, self.row_bytes = path, offset, count, row_bytes
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The rows at integers (n,) in [0, count), in any order: uint8 (n, row_bytes), owned by the caller.

        Raises UserError when the file cannot be read or ends too early.
        """
        if not hasattr(os, "preadv"):  # Windows
            mapped = np.memmap(self.path, np.uint8, "r", self.offset, (self.count, self.row_bytes))
            return np.asarray(mapped[indices])
        rows = np.empty((len(indices), self.row_bytes), np.uint8)
        if not len(rows):
            return rows
        try:
            if self._file is None:  # positions are passed with each read, so a fork may share the handle
                self._file = self.path.open("rb", buffering=0)
            handle = self._file.fileno()
            if consecutive(indices):
                self._fill(handle, rows.reshape(-1).data, self.offset + int(indices[0]) * self.row_bytes)
                return rows
            places = (self.offset + np.asarray(indices, np.int64) * self.row_bytes).tolist()
            if hasattr(os, "posix_fadvise"):  # not on macOS
                # The disk gets to know of all rows before the first is waited for: it then fetches many at once.
                for place in places:
                    os.posix_fadvise(handle, place, self.row_bytes, os.POSIX_FADV_WILLNEED)
            for row, place in zip(rows, places, strict=True):
                self._fill(handle, row.data, place)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        return rows

    def _fill(self, handle: int, target: memoryview, place: int) -> None:
        """All of ``target``: the system may give less than was asked for."""
        while len(target):
            got = os.preadv(handle, [target], place)
            if got == 0:
                raise UserError(f"{self.path}: ends after {place} bytes, within the images; copy the file again")
            target, place = target[got:], place + got
