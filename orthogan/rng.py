"""Random draws as functions of a position, so that nothing about chance needs to be saved.

Every draw in orthogan is seeded by ``derive(seed, purpose, ...position...)``: the same position gives the
same numbers whether a run was interrupted or not, and on however many processes.
"""

from __future__ import annotations

import hashlib
import operator

import torch


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed, a hash of ``seed`` and ``parts`` (stable across machines and versions).

    An integer of NumPy or a tensor of one integer gives the seed that the same Python integer gives.

    Raises:
        TypeError: ``seed`` is no integer.
    """
    try:
        seed = int(operator.index(seed))
    except TypeError:
        raise TypeError(f"seed is {seed!r}: expected an integer") from None
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(device: torch.device | str, seed: int, *parts: int | str) -> torch.Generator:
    """A fresh ``torch.Generator`` on ``device``, seeded by ``derive(seed, *parts)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *parts))
