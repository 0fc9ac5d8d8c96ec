"""Random numbers as functions of a position, so that no generator state needs to be saved.

Every draw in orthogan is seeded by ``derive(seed, purpose, ...position...)``: the same position gives the
same numbers whether a run was interrupted or not, and on however many processes.
"""

from __future__ import annotations

import hashlib

import torch

from orthogan.arguments import integer


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed, a hash of ``seed`` and ``parts`` (stable across machines and versions).

    NumPy integers and tensors with one integer give the same seed as the Python integer.

    Raises:
        TypeError: ``seed`` is not an integer.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in (integer("seed", seed), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(device: torch.device | str, seed: int, *parts: int | str) -> torch.Generator:
    """Return a new ``torch.Generator`` on ``device``, seeded by ``derive(seed, *parts)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *parts))
