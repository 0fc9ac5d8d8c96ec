"""The IDX files of MNIST and its relatives, plain or gzipped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import exists, printable, read_packed

MOST_AXES = 8


def find_idx(folder: Path, stem: str) -> Path | None:
    """``folder/stem`` or ``folder/stem.gz``, whichever is there."""
    return next((p for p in (folder / stem, folder / f"{stem}.gz") if exists(p, "file")), None)


def _shape(data: bytes | bytearray) -> tuple[int, ...]:
    """From the header; empty for what is no IDX file of bytes."""
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    if not 1 <= axes <= MOST_AXES or len(data) < 4 + 4 * axes:
        return ()
    return tuple(int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes))


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, in the shape that its header states.

    Layout: two zero bytes, the type (8 = uint8), the number of axes, their lengths as big-endian uint32, the data.
    Raises UserError naming the file when it is damaged or holds another type.
    """

    def size(header: bytes) -> int:
        return 4 + 4 * len(_shape(header)) + math.prod(_shape(header))

    data = read_packed(path, 4 + 4 * MOST_AXES, size)
    shape = _shape(data)
    if not shape:
        raise UserError(f"{printable(path)}: not an IDX file of unsigned bytes; copy or download it again")
    start = 4 + 4 * len(shape)
    body = len(data) - start
    if body != math.prod(shape):
        raise UserError(f"{printable(path)}: holds {body} bytes, its header says {shape}; copy or download it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
