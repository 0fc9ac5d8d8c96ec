"""Random crops of padded images, the usual shift augmentation of classifiers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_offsets(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Draw uniform crop positions int64 (count, 2) [pixels from top and left], each from 0 to 2 * padding."""
    return torch.randint(2 * padding + 1, (count, 2), generator=generator, device=generator.device)


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Pad images (n, c, h, w) with ``padding`` zeros on each side and crop each one at its offset.

    Offsets equal to ``padding`` return the original images. Zero is black in uint8 images, so pad before converting to
    floats.

    Raises:
        ValueError: the padding is negative, or the offsets do not have shape (n, 2).
    """
    count, channels, height, width = images.shape
    if padding < 0 or offsets.shape != (count, 2):
        raise ValueError(
            f"padding is {padding}, offsets {tuple(offsets.shape)}: one row of 2 for each of {count} images"
        )
    padded = functional.pad(images, [padding] * 4)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)
    picture = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]
