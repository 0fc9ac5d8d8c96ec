"""Random crops of padded images: the shift that classifiers are trained with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_offsets(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """The places int64 (count, 2) of the cuts [pixels from top and left], each from 0 to 2 * padding, uniform."""
    return torch.randint(2 * padding + 1, (count, 2), generator=generator, device=generator.device)


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Put a border of zeros, ``padding`` pixels wide, round images (n, c, h, w) and cut each out again at its place.

    Offsets of ``padding`` give the images back. Zero is black in uint8 images: pad those, before they become floats.

    Raises:
        ValueError: no negative padding; an (n, 2) row of offsets for each image.
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
