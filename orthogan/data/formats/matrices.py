"""Two simple matrix formats, plain or gzipped: IDX, used by MNIST and its relatives, and the format of SmallNORB.

Both consist of a header (type, number of axes, their lengths) and the values; the last axis varies fastest.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import exists, printable, read_packed

MOST_AXES = 8
# As unsigned bytes: read as signed ones, as disentanglement_lib does, bright pixels become negative.
NORB_TYPES = {
    0x1E3D4C51: np.dtype("<f4"),
    0x1E3D4C53: np.dtype("<f8"),
    0x1E3D4C54: np.dtype("<i4"),
    0x1E3D4C55: np.dtype("u1"),
    0x1E3D4C56: np.dtype("<i2"),
}


class _Layout(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # of the values [bytes]


def plain_or_gzipped(path: Path) -> Path | None:
    """Return ``path`` or ``path.gz``, whichever exists."""
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if exists(p, "file")), None)


def read_idx(path: Path) -> np.ndarray:
    """Read the unsigned bytes of an IDX file, in the shape given by its header.

    Layout: two zero bytes, the type (8 = uint8), the number of axes, their lengths as big-endian uint32, the data.
    Raises UserError naming the file if it is damaged or has another type.
    """

    def layout(data: bytes | bytearray) -> _Layout:
        axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
        if not 1 <= axes <= MOST_AXES or len(data) < 4 + 4 * axes:
            raise UserError(f"{printable(path)}: not an IDX file of unsigned bytes; copy or download it again")
        return _Layout(np.dtype("u1"), struct.unpack_from(f">{axes}I", data, 4), 4 + 4 * axes)

    return _read(path, 4 + 4 * MOST_AXES, layout)


def read_norb(path: Path) -> np.ndarray:
    """Read the array of a file in SmallNORB's matrix format. Raises UserError naming a damaged file.

    Layout, little-endian: int32 magic number (the type), int32 number of axes, their int32 lengths (at least three are
    written; superfluous ones are ignored), the values.
    """

    def layout(data: bytes | bytearray) -> _Layout:
        # A vector's header has three lengths too, so none is shorter than 20 bytes.
        magic, axes = struct.unpack_from("<Ii", data) if len(data) >= 20 else (0, 0)
        start = 8 + 4 * max(3, axes)
        if magic not in NORB_TYPES or not 1 <= axes <= MOST_AXES or len(data) < start:
            raise UserError(
                f"{printable(path)}: not a SmallNORB matrix: magic number {magic:#x}, expected 0x1e3d4c55 (bytes) or "
                "0x1e3d4c54 (int32)"
            )
        return _Layout(NORB_TYPES[magic], struct.unpack_from(f"<{axes}i", data, 8), start)

    return _read(path, 8 + 4 * MOST_AXES, layout)


def _read(path: Path, longest_header: int, layout: Callable[[bytes | bytearray], _Layout]) -> np.ndarray:
    def size(header: bytes) -> int:
        found = layout(header)
        return found.start + max(0, math.prod(found.shape)) * found.dtype.itemsize

    data = read_packed(path, longest_header, size)
    dtype, shape, start = layout(data)
    body = len(data) - start
    if min(shape) < 1 or body != math.prod(shape) * dtype.itemsize:
        raise UserError(
            f"{printable(path)}: has {body} bytes after its header, but the header says {dtype} {shape}; copy or "
            "download it again"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
