"""Which generator is this? A hash of its weights, kept in every file that was computed from it."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from orthogan.io.hashing import tensor_bytes
from orthogan.models.modes import need_numbers


def model_hash(generator: nn.Module) -> str:
    """SHA-256 (64 hex digits) over the types, shapes and bytes of all tensors in the state dict, by sorted name.

    The same weights give the same hash on any device, in any memory layout, and inside a wrapper that only
    prefixes the names; state that is not a tensor does not count.
    """
    need_numbers(generator)
    digest = hashlib.sha256()
    state = generator.state_dict()
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
