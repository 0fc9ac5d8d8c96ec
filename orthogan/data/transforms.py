"""From stored bytes to what a net sees, on whatever device the images lie.

Each comes in one piece, and as chance (``draw_...``) and a pure function of it, which may be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_float(images: Tensor, *, dequantize: bool, generator: torch.Generator | None = None) -> Tensor:
    """uint8 (n, c, h, w) to float32 in [-1, 1], memory format kept.

    With ``dequantize``: x/128 - 1 + U(0, 1/128), as the Chainer code of SNGAN (Miyato et al. 2018) fills the gaps
    between the 256 grey levels; the draws come from ``generator``, which must live on the images' device.
    Without: x/127.5 - 1. Raises TypeError for other types and ValueError for a missing generator.

    Example:
        >>> import torch
        >>> from orthogan.data import to_float
        >>> to_float(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), dequantize=False)
        tensor([[[[-1.,  1.]]]])
    """
    if dequantize and generator is None:
        raise ValueError("dequantize draws noise: pass a generator")
    noise = draw_noise(images.shape, generator) if dequantize and generator is not None else None
    return rescale_pixels(images, noise)


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The chance of ``rescale_pixels`` for images of ``shape`` (n, c, h, w): float32 of [0, 1)."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device)


def rescale_pixels(images: Tensor, noise: Tensor | None) -> Tensor:
    """``to_float`` as a pure function of the images and their noise; None: do not dequantize."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images.dtype}")
    floats = images.to(torch.float32)
    if noise is None:
        return floats.div_(127.5).sub_(1.0)
    # x - 128 is exact and so is the division by 128, so this rounds as x/128 - 1 + noise/128 does: once. The sum
    # may round up to 1, never above.
    return floats.sub_(128.0).add_(noise).mul_(1 / 128)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image (n, c, h, w) left to right with probability one half, each by its own coin.

    Example:
        >>> import torch
        >>> from orthogan.data import flip
        >>> flip(torch.zeros(4, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 8, 8])
    """
    return flip_where(images, draw_coins(len(images), generator))


def draw_coins(n: int, generator: torch.Generator) -> Tensor:
    """The chance of ``flip_where``: bool (n, 1, 1, 1)."""
    return torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) < 0.5


def flip_where(images: Tensor, coins: Tensor) -> Tensor:
    """``flip`` as a pure function: the images (n, c, h, w) whose coin (n, 1, 1, 1) is true are mirrored."""
    mirrored = images.flip(3)
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        # The same by bits: where with a coin an image goes pixel by pixel on a CPU, six times as slow.
        return mirrored.bitwise_xor_(images).mul_(coins).bitwise_xor_(images)
    return torch.where(coins, mirrored, images)
