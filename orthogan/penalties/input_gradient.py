"""Penalties on the gradient of a critic with respect to its input images: R1, R2, WGAN-GP.

``origin`` is a 0-d zero that requires a gradient. It is added to the images so that autograd tracks them, because
inside a compiled graph no tensor can be set to require a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from orthogan.named_code import describe
from orthogan.registry import Registry

Critic = Callable[[Tensor, Tensor | None], Tensor]  # (images, labels) -> logits (n,)
Images = Literal["real", "fake", "between"]  # between: a random point on the line from each real to a fake


@dataclass(frozen=True)
class GradientPenalty:
    """A penalty on the gradient of D at its input: a mean over images, summed over the kinds of images.

    Args:
        on: the images where the gradient is taken.
        value: |gradient|^2 of each image (n,) -> its penalty (n,), before multiplication by the weight.
        about: formula and source, for the docs.

    Example:
        >>> import torch
        >>> from orthogan.penalties.input_gradient import GRADIENT_PENALTIES, GradientPenalty
        >>> r1 = GRADIENT_PENALTIES.get("r1")
        >>> origin = torch.zeros((), requires_grad=True)
        >>> r1.at(lambda x, y: 2 * x.sum((1, 2, 3)), torch.zeros(3, 1, 2, 2), None, origin).item()
        8.0
        >>> mine = GradientPenalty(("fake",), lambda square: square.sqrt())  # my_module:mine
    """

    on: tuple[Images, ...]
    value: Callable[[Tensor], Tensor]
    about: str = ""

    def at(self, critic: Critic, images: Tensor, labels: Tensor | None, origin: Tensor) -> Tensor:
        """Return the mean penalty (0-d) at ``images`` (n, c, h, w) with ``labels`` (n,)."""
        images = track_gradient(images, origin)
        return self.value(squared_norm(critic(images, labels), images)).mean()


def track_gradient(images: Tensor, origin: Tensor) -> Tensor:
    """Return ``images`` as a new tensor that autograd tracks."""
    return images.detach() + origin


def between(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return the point ``mix`` (n,) of the way [0-1] from each real image (n, c, h, w) to the fake of its pair."""
    return torch.lerp(real, fake, mix.view(-1, 1, 1, 1).to(real))


def squared_norm(logits: Tensor, images: Tensor) -> Tensor:
    """Return |d logit_i / d image_i|^2 for each image, shape (n,), float32, differentiable again.

    One backward pass suffices for the whole batch, because the logit of an image does not depend on other images.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


def _half(square: Tensor) -> Tensor:
    return 0.5 * square


def _from_one(square: Tensor) -> Tensor:
    return ((square + 1e-12).sqrt() - 1).square()  # the square root is not differentiable at 0


def _adopt(found: Any) -> GradientPenalty:
    if isinstance(found, GradientPenalty):
        return found
    raise TypeError(f"{describe(found)}; name an orthogan.penalties.input_gradient.GradientPenalty")


GRADIENT_PENALTIES: Registry[GradientPenalty] = Registry("gradient penalty", adopt=_adopt)
GRADIENT_PENALTIES.register("none")(GradientPenalty((), _half))
GRADIENT_PENALTIES.register("r1")(
    GradientPenalty(("real",), _half, "E|grad D|^2 / 2 at reals (Mescheder et al. 2018, eq. 9, arXiv:1801.04406)")
)
GRADIENT_PENALTIES.register("r2")(
    GradientPenalty(("fake",), _half, "E|grad D|^2 / 2 at fakes (Mescheder et al. 2018, eq. 10, arXiv:1801.04406)")
)
GRADIENT_PENALTIES.register("r1+r2")(
    GradientPenalty(("real", "fake"), _half, "the sum of r1 and r2 (Huang et al. 2024, arXiv:2501.05441)")
)
WGAN_GP = GradientPenalty(
    ("between",),
    _from_one,
    "E(|grad D| - 1)^2 between reals and fakes (Gulrajani et al. 2017, eq. 3, arXiv:1704.00028)",
)
GRADIENT_PENALTIES.register("wgan-gp")(WGAN_GP)
