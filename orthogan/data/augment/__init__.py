"""What stands between an image and the discriminator, reals and fakes alike: a kind of augmentation per file."""

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
    """Images as they are; the other kinds refine this one. They are made of the options in their section ``config``.

    Chance is drawn apart from what is done with it, so that a phase that is compiled as a whole can take the drawn
    tensors as inputs: no generator can enter its graph.
    """

    config: ClassVar[type[AugmentConfig]] = AugmentConfig

    def draw(self, n: int, shape: Sequence[int], generator: torch.Generator) -> Drawn:
        """The chance that ``apply`` needs for n images of ``shape`` (c, h, w): tensors on the generator's device."""
        return ()

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """``images`` (n, c, h, w) as D is to see them: a pure function, twice differentiable in the images."""
        return images

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Both in one; floats of up to 32 bits."""
        return self.apply(images, self.draw(len(images), images.shape[1:], generator))

    def observe(self, real_sign: Tensor) -> None:
        """Take note of E[sign D(real)] of a D update."""

    def finish_step(self, images: int, accelerator: Accelerator) -> None:
        """Adapt after a step of so many ``images``, if this kind does."""

    def scalars(self) -> dict[str, float]:
        """Numbers for the log."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to store."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state_dict()``."""


def make_augment(config: AugmentConfig) -> Augmentation:
    """The augmentation of a config, whose ``module:Name`` is imported. Raises ``UserError`` for unknown options."""
    kind = AUGMENTATIONS.get(config.kind, "augment.kind")
    options: dict[str, Any] = AUGMENTED.resolved(config).model_dump(exclude={"kind"})
    return kind(**options)
