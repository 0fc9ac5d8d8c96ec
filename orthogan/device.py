"""What the hardware is good at."""

from __future__ import annotations

import torch


def fast_bf16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively, so that autocast gains time instead of costing it."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "mps":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
