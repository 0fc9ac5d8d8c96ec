"""Images in an ``.npy`` file, read as they are needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.sources.row_file import RowFile
from orthogan.data.sources.stored_source import StoredSource
from orthogan.errors import UserError
from orthogan.io.numpy_files import Header, read_header
from orthogan.io.read import check_regular, open_regular, printable


def npy_header(path: Path) -> Header:
    """The header of an ``.npy`` file; raises UserError for an array in Fortran order, and where the file is cut."""
    size = check_regular(path)
    with open_regular(path) as file:
        header = read_header(file, path)
    if header.fortran and len(header.shape) > 1:
        raise UserError(f"{printable(path)}: is stored in Fortran order; save numpy.ascontiguousarray of it")
    if header.start + header.nbytes > size:
        raise UserError(f"{printable(path)}: ends within the images {header.dtype} {header.shape}; copy the file again")
    return header


class NpySource(StoredSource):
    """The images uint8 or bool (N, H, W) or (N, H, W, 1 or 3) of an ``.npy`` file."""

    def __init__(self, path: Path, header: Header, resolution: int, channels: int, annotation: dict[str, Any]) -> None:
        super().__init__(path, header.shape, header.dtype, resolution, channels, annotation, key="npy")
        row = math.prod(self.shape)
        self.rows = RowFile(path, offset=header.start, count=len(self), row_bytes=row)

    def stored(self, indices: np.ndarray) -> np.ndarray:
        return self.rows.read(indices).view(self.dtype).reshape(-1, *self.shape)
