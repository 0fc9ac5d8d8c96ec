"""Penalties on the gradient of a critic with respect to its input images: R1, R2, WGAN-GP.

``origin`` is a 0-d zero that requires a gradient. It is added to the images so that autograd tracks them, because
inside a compiled graph no tensor can be set to require a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor, Tensor | None], Tensor]  # (images, labels) -> logits (n,)


def track_gradient(images: Tensor, origin: Tensor) -> Tensor:
    """Return ``images`` as a new tensor that autograd tracks."""
    return images.detach() + origin


def squared_norm(logits: Tensor, images: Tensor) -> Tensor:
    """Return |d logit_i / d image_i|^2 for each image, shape (n,), float32, differentiable again.

    One backward pass suffices for the whole batch, because the logit of an image does not depend on other images.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


def zero_centered_gradient_penalty(
    critic: Critic, images: Tensor, labels: Tensor | None, gamma: float, origin: Tensor
) -> Tensor:
    """Return gamma/2 E|grad D|^2 on ``images``: R1 for real images, R2 for fake ones (Mescheder et al. 2018)."""
    images = track_gradient(images, origin)
    return 0.5 * gamma * squared_norm(critic(images, labels), images).mean()


def wgan_gp(
    critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None, weight: float, mix: Tensor, origin: Tensor
) -> Tensor:
    """Return weight * E(|grad D| - 1)^2 between paired reals and fakes (Gulrajani et al. 2017, eq. 3).

    Args:
        mix: one number in [0, 1] per pair, shape (n,).
    """
    mix = mix.view(-1, 1, 1, 1).to(real.dtype)
    between = track_gradient(torch.lerp(real, fake, mix), origin)
    # the square root is not differentiable at 0
    norm = (squared_norm(critic(between, labels), between) + 1e-12).sqrt()
    return weight * (norm - 1).square().mean()
