"""Hashes of tensors and of JSON records, to recognize them and to notice damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def tensors_sha256(tensors: Mapping[str, Tensor], start: str = "") -> str:
    """SHA-256 (64 hex digits) over ``start`` and the names, types, shapes and bytes of all tensors, in their order."""
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The elements of ``tensor`` in the order of its indices, whatever its layout in memory."""
    if not tensor.numel():  # an empty tensor has no view as bytes
        return memoryview(b"")
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # strides of its own
    return plain.view(-1).view(torch.uint8).numpy().data


def json_sha256(record: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of a record's content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
