"""DiffAugment (Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training").

Random numbers are drawn separately (``draw_...``), so that each operation is a pure function of tensors: it can be
differentiated twice with respect to the images, as gradient penalties need, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from orthogan.data.augment import Augmentation, Drawn, count_colors
from orthogan.data.config import AUGMENTATIONS, AugmentConfig
from orthogan.errors import UserError

TRANSLATION = 0.125  # largest shift, as a fraction of the side
CUTOUT = 0.5  # side of the cutout square, as a fraction of the image side


def _integers(n: int, low: int, high: int, generator: torch.Generator) -> Tensor:
    """Draw one integer in [low, high] per image, (n, 1)."""
    return torch.randint(low, high + 1, (n, 1), generator=generator, device=generator.device)


def brightness(images: Tensor, drawn: Tensor) -> Tensor:
    """Add U(-0.5, 0.5)."""
    return images + (drawn - 0.5)


def saturation(images: Tensor, drawn: Tensor) -> Tensor:
    """Scale the distance of each pixel to its gray value by U(0, 2)."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (2 * drawn)


def contrast(images: Tensor, drawn: Tensor) -> Tensor:
    """Scale the distance of each pixel to the mean of its image by U(0.5, 1.5)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (drawn + 0.5)


def draw_color(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """Draw three numbers (n, 1, 1, 1) in [0, 1)."""
    return tuple(torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) for _ in range(3))


def color(images: Tensor, *drawn: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, in this order; the last of 2 or 4 channels, alpha, stays as it is."""
    if (colors := count_colors(images.shape[1])) < images.shape[1]:
        return torch.cat([color(images[:, :colors], *drawn), images[:, colors:]], 1)
    for operation, numbers in zip((brightness, saturation, contrast), drawn, strict=True):
        images = operation(images, numbers)
    return images


def draw_translation(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """Draw the shifts of rows and columns: integers (n, 1) each."""
    reaches = [int(side * TRANSLATION + 0.5) for side in shape[1:]]
    return tuple(_integers(n, -reach, reach, generator) for reach in reaches)


def translation(images: Tensor, *drawn: Tensor) -> Tensor:
    """Shift by up to an eighth of the side in each direction, filling with zeros (mid-gray)."""
    for axis, first in zip((2, 3), drawn, strict=True):
        side = images.shape[axis]
        source = torch.arange(side, device=images.device) + first
        shape = (len(images), 1, side, 1) if axis == 2 else (len(images), 1, 1, side)
        index = source.clamp(0, side - 1).view(shape).expand_as(images)
        inside = ((source >= 0) & (source < side)).view(shape)
        images = images.gather(axis, index) * inside
    return images


def draw_cutout(n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
    """Draw the row and column of the center of the square: integers (n, 1) each."""
    return tuple(_integers(n, 0, side - _hole(side) % 2, generator) for side in shape[1:])


def cutout(images: Tensor, *drawn: Tensor) -> Tensor:
    """Set a square of half the side to zero; its center is anywhere in the image, so part of it may lie outside."""
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
    """An operation: ``draw(n, (c, h, w), generator)`` returns ``size`` tensors for ``apply(images, *drawn)``."""

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
    policy: str = Field(default="color,translation,cutout", description="operations, separated by commas")
    p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0,
        description="probability of each operation, drawn once per batch; 0.6 in the code of the NOG paper [0-1]",
    )


@AUGMENTATIONS.register("diffaugment")
class DiffAugment(Augmentation):
    """Apply augmentations to images, in a given order.

    Call it with images, float (n, c, h, w) in [-1, 1], and a generator on their device; the result has the same shape
    and type. Every image gets its own draws, in at least float32.

    Args:
        policy: comma-separated names of ``OPERATIONS``.
        p: probability of each operation, which is applied to a whole batch or to none of it.

    Raises:
        UserError: an operation is unknown, or there is none.

    Source: Zhao et al. 2020, arXiv:2006.10738.

    Example:
        >>> import torch
        >>> from orthogan.data import DiffAugment
        >>> augment = DiffAugment("color,translation")
        >>> augment(torch.zeros(4, 3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 16, 16])
    """

    config = DiffAugmentConfig

    def __init__(self, policy: str = "color,translation,cutout", p: float = 1.0) -> None:
        names = [name.strip() for name in policy.split(",") if name.strip()]
        unknown = [name for name in names if name not in OPERATIONS]
        if unknown or not names:
            raise UserError(
                f"augment.policy: {policy!r} must be a comma-separated list of names from {', '.join(OPERATIONS)}"
            )
        self.names, self.p = names, p

    def draw(self, n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
        """Draw the tensors of ``apply`` for n images of ``shape`` (c, h, w), n rows each, on the generator's device."""
        found: list[Tensor] = []
        for name in self.names:
            found += OPERATIONS[name].draw(n, shape, generator)
            if self.p < 1:  # one row per image, as of all draws, but the same in all rows
                used = torch.rand((), generator=generator, device=generator.device) < self.p
                found.append(used.expand(n, 1, 1, 1))
        return tuple(found)

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Apply the policy to ``images``: a pure function, twice differentiable with respect to the images."""
        result = images.to(torch.promote_types(images.dtype, torch.float32))
        first = 0
        for name in self.names:
            operation = OPERATIONS[name]
            changed = operation.apply(result, *drawn[first : first + operation.size])
            first += operation.size
            if self.p < 1:
                changed = torch.where(drawn[first], changed, result)
                first += 1
            result = changed
        return result.to(images.dtype)

    def __repr__(self) -> str:
        return f"DiffAugment({','.join(self.names)!r}{'' if self.p == 1 else f', p={self.p:g}'})"
