"""From stored bytes to what a net sees, on whatever device the images lie."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor, *, dequantize: bool, generator: torch.Generator | None = None) -> Tensor:
    """uint8 (n, c, h, w) to float32 in [-1, 1], memory format kept.

    With ``dequantize``: x/128 - 1 + U(0, 1/128), as the Chainer code of SNGAN (Miyato et al. 2018) fills the gaps
    between the 256 grey levels; the draws come from ``generator``, which must live on the images' device.
    Without: x/127.5 - 1. Raises TypeError for other types and ValueError for a missing generator.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images.dtype}")
    floats = images.to(torch.float32)
    if not dequantize:
        return floats.div_(127.5).sub_(1.0)
    if generator is None:
        raise ValueError("dequantize draws noise: pass a generator")
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    # x/128 - 1 is exact in float32; the sum may round up to 1, never above.
    return floats.div_(128.0).sub_(1.0).add_(noise.div_(128.0))


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image (n, c, h, w) left to right with probability one half, each by its own coin."""
    coins = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(coins, images.flip(3), images)
