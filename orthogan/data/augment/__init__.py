"""Augmentations of real and fake images before the discriminator, one kind per file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from orthogan.data.config import AUGMENTATIONS, AUGMENTED, AugmentConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

Drawn = tuple[Tensor, ...]


@AUGMENTATIONS.register("none")
class Augmentation:
    """Base class of augmentations: leaves images as they are. Built from the options in its section ``config``.

    Random numbers are drawn separately from their use. A compiled phase can then take them as inputs, since a compiled
    graph cannot contain a generator.
    """

    config: ClassVar[type[AugmentConfig]] = AugmentConfig

    def draw(self, n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
        """Draw the random tensors of ``apply`` for n images of ``shape`` (c, h, w), on the device of ``generator``."""
        return ()

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Return ``images`` (n, c, h, w) as D sees them: a pure, twice differentiable function of the images."""
        return images

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply in one call; uses at most 32-bit floats."""
        return self.apply(images, self.draw(len(images), images.shape[1:], generator))

    def observe(self, real_sign: Tensor) -> None:
        """Record E[sign D(real)] of a D update."""

    def finish_step(self, images: int, accelerator: Accelerator) -> None:
        """Adapt after a step of ``images`` images, if this kind is adaptive."""

    def scalars(self) -> dict[str, float]:
        """Return numbers for the log."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to store."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state_dict()``."""


def count_colors(channels: int) -> int:
    """Return how many of ``channels`` are colors: the last of 2 or 4 is alpha, which color changes leave as it is."""
    return channels - (channels in (2, 4))


def make_augment(config: AugmentConfig) -> Augmentation:
    """Build the augmentation of a config, importing ``module:Name``. Raises ``UserError`` for unknown options."""
    kind = AUGMENTATIONS.get(config.kind, "augment.kind")
    options: dict[str, Any] = AUGMENTED.resolved(config).model_dump(exclude={"kind"})
    return kind(**options)
