"""Hashes of content, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np


class ContentHash:
    """A BLAKE2b hash fed with text and arrays; the order of what is fed matters, the memory layout does not."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=20)

    def text(self, *parts: object) -> ContentHash:
        """Feed the parts, each ended, so that ``("ab", "c")`` and ``("a", "bc")`` differ."""
        for part in parts:
            # File names may hold bytes that are no text.
            self._digest.update(f"{part}\0".encode("utf-8", "surrogateescape"))
        return self

    def array(self, values: np.ndarray) -> ContentHash:
        """Feed type, shape and values, in pieces, so that a view is never copied whole."""
        self.text(values.dtype.str, values.shape)
        for start in range(0, len(values), 4096):
            self._digest.update(np.ascontiguousarray(values[start : start + 4096]).data)
        return self

    def hexdigest(self) -> str:
        """40 hexadecimal digits."""
        return self._digest.hexdigest()
