"""DiffAugment (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training").

Every operation can be differentiated twice with respect to the images, so gradient penalties pass through.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orthogan.errors import UserError

TRANSLATION = 0.125  # largest shift, as a share of the side
CUTOUT = 0.5  # side of the square that is cut out, as a share of the image's


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)


def _integers(images: Tensor, low: int, high: int, generator: torch.Generator) -> Tensor:
    """One integer in [low, high] an image, (n, 1)."""
    return torch.randint(low, high + 1, (len(images), 1), generator=generator, device=images.device)


def brightness(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add U(-0.5, 0.5)."""
    return images + (_uniform(images, generator) - 0.5)


def saturation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Scale the distance to the grey of each pixel by U(0, 2)."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (2 * _uniform(images, generator))


def contrast(images: Tensor, generator: torch.Generator) -> Tensor:
    """Scale the distance to the mean of each image by U(0.5, 1.5)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (_uniform(images, generator) + 0.5)


def color(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, saturation and contrast, in this order."""
    for operation in (brightness, saturation, contrast):
        images = operation(images, generator)
    return images


def translation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side in each direction; zeros (mid-grey) move in."""
    for axis in (2, 3):
        side = images.shape[axis]
        reach = int(side * TRANSLATION + 0.5)
        source = torch.arange(side, device=images.device) + _integers(images, -reach, reach, generator)
        shape = (len(images), 1, side, 1) if axis == 2 else (len(images), 1, 1, side)
        index = source.clamp(0, side - 1).view(shape).expand_as(images)
        inside = ((source >= 0) & (source < side)).view(shape)
        images = images.gather(axis, index) * inside
    return images


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Set a square of half the side to zero; its centre is anywhere in the image, so it may stick out."""
    inside: list[Tensor] = []
    for axis in (2, 3):
        side = images.shape[axis]
        size = int(side * CUTOUT + 0.5)
        centre = _integers(images, 0, side - size % 2, generator)
        first = centre - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= first) & (place < first + size))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~square


OPERATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


class DiffAugment:
    """The operations of ``policy``, comma-separated names of ``OPERATIONS``, one after the other.

    Call: images float (n, c, h, w) in [-1, 1] and a generator on their device, to the same shape and type; every
    image gets its own draws, in float32 at least. Raises UserError for an unknown or missing operation.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        names = [name.strip() for name in policy.split(",") if name.strip()]
        unknown = [name for name in names if name not in OPERATIONS]
        if unknown or not names:
            raise UserError(f"augment.policy: {policy!r} must be a comma-separated list out of {', '.join(OPERATIONS)}")
        self.names = names

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        result = images.to(torch.promote_types(images.dtype, torch.float32))
        for name in self.names:
            result = OPERATIONS[name](result, generator)
        return result.to(images.dtype)

    def __repr__(self) -> str:
        return f"DiffAugment({','.join(self.names)!r})"
