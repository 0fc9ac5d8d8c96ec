"""Images in an ``.npy`` file, read as they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.row_file import RowFile
from orthogan.data.stored_source import StoredSource
from orthogan.errors import UserError


def open_rows(path: Path) -> tuple[RowFile, tuple[int, ...]]:
    """The rows of the array in an ``.npy`` file, and the shape of one; only the header is read.

    Raises UserError for anything but a uint8 array in C order, and for a file that ends too early.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an .npy file ({error})") from error
    if not isinstance(mapped, np.memmap) or mapped.dtype != np.uint8 or mapped.ndim < 3:
        raise UserError(f"{path}: must hold one uint8 array (N, H, W) or (N, H, W, 1 or 3)")
    if not mapped.flags.c_contiguous:
        raise UserError(f"{path}: is stored in Fortran order; save numpy.ascontiguousarray of it")
    shape = mapped.shape[1:]
    return RowFile(path, offset=mapped.offset, count=len(mapped), row_bytes=int(np.prod(shape))), shape


class NpySource(StoredSource):
    """The images uint8 (N, H, W) or (N, H, W, 1 or 3) of an ``.npy`` file."""

    def __init__(self, path: Path, resolution: int, channels: int, annotation: dict[str, Any]) -> None:
        self.rows, self.shape = open_rows(path)
        super().__init__(path, len(self.rows), resolution, channels, annotation, key="npy")

    def stored(self, indices: np.ndarray) -> np.ndarray:
        return self.rows.read(indices).reshape(-1, *self.shape)
