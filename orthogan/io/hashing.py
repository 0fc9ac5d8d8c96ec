"""A hash of named tensors, to recognize them and to notice damage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_sha256(tensors: Mapping[str, Tensor], start: str = "") -> str:
    """SHA-256 (64 hex digits) over ``start`` and the names, types, shapes and bytes of all tensors, in their order."""
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():  # an empty tensor has no view as bytes
            plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # strides of its own
            digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
