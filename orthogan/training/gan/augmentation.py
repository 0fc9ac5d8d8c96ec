"""What stands between an image and the discriminator: nothing, DiffAugment, or adaptive augmentation.

Chance is drawn apart from what is done with it, so that a phase that is compiled as a whole can take the drawn
tensors as inputs: no generator can enter its graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from orthogan.data import AdaptiveAugment, DiffAugment
from orthogan.data.config import AugmentConfig

Drawn = tuple[Tensor, ...]


class Augmentation:
    """Images as they are; the other kinds refine this one."""

    def draw(self, n: int, shape: Sequence[int], rng: torch.Generator) -> Drawn:
        """The chance that ``apply`` needs for n images of ``shape`` (c, h, w): tensors on the device of ``rng``."""
        return ()

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """``images`` (n, c, h, w) as D is to see them: a pure function, twice differentiable in the images."""
        return images

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Both in one; floats of up to 32 bits."""
        return self.apply(images, self.draw(len(images), images.shape[1:], rng))

    def update(self, real_sign: Tensor) -> None:
        """Take note of E[sign D(real)] of a D update."""

    def finish_step(self, step: int, images: int, accelerator: Accelerator) -> None:
        """Adapt, if this kind does."""

    def scalars(self) -> dict[str, float]:
        """Numbers for the log."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Tensors to store."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""


class Fixed(Augmentation):
    """DiffAugment (Zhao et al. 2020): the same policy from the first step to the last."""

    def __init__(self, policy: str) -> None:
        self.policy = DiffAugment(policy)

    def draw(self, n: int, shape: Sequence[int], rng: torch.Generator) -> Drawn:
        """The numbers of each operation of the policy."""
        return self.policy.draw(n, shape, rng)

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """``images`` under the policy."""
        return self.policy.apply(images, drawn)


class Adaptive(Augmentation):
    """ADA (Karras et al. 2020): the probability follows the sign of D on reals, averaged over all processes."""

    def __init__(self, config: AugmentConfig) -> None:
        self.pipe = AdaptiveAugment(config.target, config.images_to_one, config.interval)
        self.signs: list[Tensor] = []  # of this step's D updates; nothing of it outlives the step

    def draw(self, n: int, shape: Sequence[int], rng: torch.Generator) -> Drawn:
        """p and the numbers of each transformation."""
        return self.pipe.draw(n, shape, rng)

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """``images`` with each transformation applied at probability p."""
        return self.pipe.apply(images, drawn)

    def update(self, real_sign: Tensor) -> None:
        """Take note of E[sign D(real)] of a D update; stays on the device."""
        self.signs.append(real_sign)

    def finish_step(self, step: int, images: int, accelerator: Accelerator) -> None:
        """Report the step's mean sign over all processes; p moves every ``interval`` steps."""
        mean = accelerator.reduce(torch.stack(self.signs).mean(), "mean")
        assert isinstance(mean, Tensor)
        self.pipe.update(mean, images)
        self.signs.clear()

    def scalars(self) -> dict[str, float]:
        """The present probability."""
        return {"augment/p": float(self.pipe.p)}

    def state(self) -> dict[str, Tensor]:
        """p, and what was seen since it last moved."""
        return self.pipe.state_dict()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        if tensors:  # else it begins here
            self.pipe.load_state_dict(tensors)


def make_augment(config: AugmentConfig) -> Augmentation:
    """The augmentation of a config."""
    if config.kind == "diffaugment":
        return Fixed(config.policy)
    if config.kind == "ada":
        return Adaptive(config)
    return Augmentation()
