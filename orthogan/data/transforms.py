"""Transforms from stored bytes to the input of a network, on the device of the images.

Each exists as one function, and as a random draw (``draw_...``) plus a pure function, which may be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_float(images: Tensor, *, dequantize: bool, generator: torch.Generator | None = None) -> Tensor:
    """Convert uint8 (n, c, h, w) to float32 in [-1, 1], keeping the memory format.

    With ``dequantize``: x/128 - 1 + U(0, 1/128), as the Chainer code of SNGAN (Miyato et al. 2018), which fills the
    gaps between the 256 gray levels; ``generator``, which must be on the device of the images, draws the noise.
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
    """Draw the noise of ``rescale_pixels`` for images of ``shape`` (n, c, h, w): float32 in [0, 1)."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device)


def rescale_pixels(images: Tensor, noise: Tensor | None) -> Tensor:
    """Compute Compute ``to_float`` as a pure function of the images and their noise; None: do not dequantize."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float takes uint8 images, not {images.dtype}")
    floats = images.to(torch.float32)
    if noise is None:
        return floats.div_(127.5).sub_(1.0)
    # x - 128 and the division by 128 are exact, so this rounds only once, like x/128 - 1 + noise/128. The sum may round
    # up to 1, never above.
    return floats.sub_(128.0).add_(noise).mul_(1 / 128)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each image (n, c, h, w) horizontally with probability one half, independently.

    Example:
        >>> import torch
        >>> from orthogan.data import flip
        >>> flip(torch.zeros(4, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 8, 8])
    """
    return flip_where(images, draw_coins(len(images), generator))


def draw_coins(n: int, generator: torch.Generator) -> Tensor:
    """Draw the coins of ``flip_where``: bool (n, 1, 1, 1)."""
    return torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) < 0.5


def flip_where(images: Tensor, coins: Tensor) -> Tensor:
    """Flip the images (n, c, h, w) whose coin (n, 1, 1, 1) is true: ``flip`` as a pure function."""
    mirrored = images.flip(3)
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        # Select with bit operations: torch.where is six times as slow on a CPU.
        return mirrored.bitwise_xor_(images).mul_(coins).bitwise_xor_(images)
    return torch.where(coins, mirrored, images)
