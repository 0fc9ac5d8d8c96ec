"""DiffAugment (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training").

Chance is drawn apart (``draw_...``) from what is done with it, so that the latter is a pure function of tensors: it
can be differentiated twice with respect to the images, as gradient penalties need, and compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from orthogan.data.augment import Augmentation, Drawn
from orthogan.data.config import AUGMENTATIONS, AugmentConfig
from orthogan.errors import UserError

TRANSLATION = 0.125  # largest shift, as a share of the side
CUTOUT = 0.5  # side of the square that is cut out, as a share of the image's


def _integers(n: int, low: int, high: int, generator: torch.Generator) -> Tensor:
    """One integer in [low, high] an image, (n, 1)."""
    return torch.randint(low, high + 1, (n, 1), generator=generator, device=generator.device)


def brightness(images: Tensor, drawn: Tensor) -> Tensor:
    """Add U(-0.5, 0.5)."""
    return images + (drawn - 0.5)


def saturation(images: Tensor, drawn: Tensor) -> Tensor:
    """Scale the distance to the grey of each pixel by U(0, 2)."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (2 * drawn)


def contrast(images: Tensor, drawn: Tensor) -> Tensor:
    """Scale the distance to the mean of each image by U(0.5, 1.5)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (drawn + 0.5)


def draw_color(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """Three numbers (n, 1, 1, 1) of [0, 1)."""
    return tuple(torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) for _ in range(3))


def color(images: Tensor, *drawn: Tensor) -> Tensor:
    """Brightness, saturation and contrast, in this order."""
    for operation, numbers in zip((brightness, saturation, contrast), drawn, strict=True):
        images = operation(images, numbers)
    return images


def draw_translation(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """Where the first row and the first column come from: integers (n, 1) each."""
    reaches = [int(side * TRANSLATION + 0.5) for side in shape[1:]]
    return tuple(_integers(n, -reach, reach, generator) for reach in reaches)


def translation(images: Tensor, *drawn: Tensor) -> Tensor:
    """Shift by up to an eighth of the side in each direction; zeros (mid-grey) move in."""
    for axis, first in zip((2, 3), drawn, strict=True):
        side = images.shape[axis]
        source = torch.arange(side, device=images.device) + first
        shape = (len(images), 1, side, 1) if axis == 2 else (len(images), 1, 1, side)
        index = source.clamp(0, side - 1).view(shape).expand_as(images)
        inside = ((source >= 0) & (source < side)).view(shape)
        images = images.gather(axis, index) * inside
    return images


def draw_cutout(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """The row and the column of the square's centre: integers (n, 1) each."""
    return tuple(_integers(n, 0, side - _hole(side) % 2, generator) for side in shape[1:])


def cutout(images: Tensor, *drawn: Tensor) -> Tensor:
    """Set a square of half the side to zero; its centre is anywhere in the image, so it may stick out."""
    inside: list[Tensor] = []
    for side, centre in zip(images.shape[2:], drawn, strict=True):
        first = centre - _hole(side) // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= first) & (place < first + _hole(side)))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * ~square


def _hole(side: int) -> int:
    return int(side * CUTOUT + 0.5)


class Operation(NamedTuple):
    """``draw(n, (c, h, w), generator)`` gives ``size`` tensors, with which ``apply(images, *drawn)`` is done."""

    draw: Callable[[int, Sequence[int], torch.Generator], Drawn]
    apply: Callable[..., Tensor]
    size: int


OPERATIONS = {
    "color": Operation(draw_color, color, 3),
    "translation": Operation(draw_translation, translation, 2),
    "cutout": Operation(draw_cutout, cutout, 2),
}


class DiffAugmentConfig(AugmentConfig):
    """The options of DiffAugment."""

    kind: str = "diffaugment"
    policy: str = Field(default="color,translation,cutout", description="comma-separated operations")


@AUGMENTATIONS.register("diffaugment")
class DiffAugment(Augmentation):
    """The operations of ``policy``, comma-separated names of ``OPERATIONS``, one after the other.

    Call: images float (n, c, h, w) in [-1, 1] and a generator on their device, to the same shape and type; every
    image gets its own draws, in float32 at least. Raises UserError for an unknown or missing operation.

    Example:
        >>> import torch
        >>> from orthogan.data import DiffAugment
        >>> augment = DiffAugment("color,translation")
        >>> augment(torch.zeros(4, 3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 16, 16])
    """

    config = DiffAugmentConfig

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        names = [name.strip() for name in policy.split(",") if name.strip()]
        unknown = [name for name in names if name not in OPERATIONS]
        if unknown or not names:
            raise UserError(f"augment.policy: {policy!r} must be a comma-separated list out of {', '.join(OPERATIONS)}")
        self.names = names

    def draw(self, n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
        """What ``apply`` needs for n images of ``shape`` (c, h, w): tensors of n rows on the generator's device."""
        return tuple(drawn for name in self.names for drawn in OPERATIONS[name].draw(n, shape, generator))

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """``images`` under the policy: a pure function, twice differentiable in the images."""
        result = images.to(torch.promote_types(images.dtype, torch.float32))
        first = 0
        for name in self.names:
            operation = OPERATIONS[name]
            result = operation.apply(result, *drawn[first : first + operation.size])
            first += operation.size
        return result.to(images.dtype)

    def __repr__(self) -> str:
        return f"DiffAugment({','.join(self.names)!r})"
