"""Content hashes, the same on every machine, to identify data and models and to detect damage."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orthogan.errors import UserError
from orthogan.io.read import cache_folder, open_regular, printable, read_json
from orthogan.io.threads import in_threads
from orthogan.io.write import write_text
from orthogan.progress import progress_bar

if TYPE_CHECKING:  # torch takes a second to import, and hashes of files and arrays do not need it
    from torch import Tensor


class ContentHash:
    """A BLAKE2b hash of text and arrays; their order matters, their memory layout does not."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=20)

    def text(self, *parts: object) -> ContentHash:
        """Add the parts with terminators, so that ``("ab", "c")`` and ``("a", "bc")`` differ."""
        for part in parts:
            # File names may contain bytes that are not text.
            self._digest.update(f"{part}\0".encode("utf-8", "surrogateescape"))
        return self

    def array(self, values: np.ndarray) -> ContentHash:
        """Add type, shape and values in pieces, so that a view is never copied as a whole."""
        self.text(values.dtype.str, values.shape)
        for start in range(0, len(values), 4096):
            self._digest.update(np.ascontiguousarray(values[start : start + 4096]).data)
        return self

    def hexdigest(self) -> str:
        """Return 40 hexadecimal digits."""
        return self._digest.hexdigest()


def hash_files(paths: Sequence[Path]) -> str:
    """Hash the content of files in this order; their names and locations do not matter.

    Every byte is read once: the result is cached for as long as size, times and inode of every file stay the same. An
    unreadable file counts as an empty file.
    """
    states = [_state(path) for path in paths]
    key = ContentHash().text(*map(str, paths), *states).hexdigest()
    kept = cache_folder() / "fingerprints" / f"{key}.json"
    with suppress(UserError):
        known = read_json(kept, 1 << 10)
        if isinstance(known, str):
            return known
    bar = progress_bar(paths, desc="hashing files", unit=" files", leave=False, delay=2)
    digest = ContentHash().text(*in_threads(_content_hash, bar)).hexdigest()
    newest = max((state[-1] for state in states), default=0)
    # Clocks of file systems are coarse: a file that has just changed may change again without a new time.
    if newest < time.time_ns() - 2_000_000_000 and [_state(path) for path in paths] == states:
        with suppress(UserError):
            write_text(kept, json.dumps(digest))
    return digest


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced; only the system sets the last value."""
    try:
        status = os.stat(path)
    except OSError:
        return (0,)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=20)
    with suppress(UserError, OSError), open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor], start: str = "") -> str:
    """Return the SHA-256 (64 hex digits) of ``start`` and the names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the elements of ``tensor`` in index order, for any memory layout."""
    if not tensor.numel():  # an empty tensor cannot be viewed as bytes
        return memoryview(b"")
    import torch

    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # unusual strides
    return plain.view(-1).view(torch.uint8).numpy().data


def json_sha256(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 (64 hex digits) of a record, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of a file. Raises ``UserError`` if it cannot be read."""
    with open_regular(path) as stream:
        try:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        except OSError as error:
            raise UserError(f"{printable(path)}: {error.strerror}") from None
