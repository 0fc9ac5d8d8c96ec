"""Adversarial losses on logits, as (discriminator, generator) pairs of pure functions.

Each takes logits of shape (n,) in float32 and returns a scalar mean. The relativistic loss pairs real i with
fake i; the others ignore the pairing. Your own loss, ``my_module:NAME``, is an ``AdversarialLoss``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from orthogan.named_code import describe
from orthogan.registry import Registry

DiscriminatorLoss = Callable[[Tensor, Tensor], Tensor]  # (real logits, fake logits) -> scalar
GeneratorLoss = Callable[[Tensor, Tensor | None], Tensor]  # (fake logits, real logits or None) -> scalar


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of D and of G, functions of logits (n,) that return a scalar.

    Args:
        discriminator: (real logits, fake logits) -> loss of D.
        generator: (fake logits, real logits or None) -> loss of G.
        paired: whether the loss of G also needs the logits of reals.
        about: formulas and source, for the docs.

    Example:
        >>> import torch
        >>> from orthogan.losses import LOSSES, AdversarialLoss
        >>> hinge = LOSSES.get("hinge")
        >>> hinge.discriminator(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, -1.0])).item()
        0.25
        >>> mine = AdversarialLoss(hinge.discriminator, lambda fake, real: (1 - fake).square().mean())  # my_module:mine
    """

    discriminator: DiscriminatorLoss
    generator: GeneratorLoss
    paired: bool = False
    about: str = ""


def _hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    return relu(1 - real).mean() + relu(1 + fake).mean()


def _non_saturating_d(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(-real).mean() + softplus(fake).mean()


def _wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def _relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(fake - real).mean()


def _minus_mean(fake: Tensor, real: Tensor | None) -> Tensor:
    return -fake.mean()


def _non_saturating_g(fake: Tensor, real: Tensor | None) -> Tensor:
    return softplus(-fake).mean()


def _least_squares_g(fake: Tensor, real: Tensor | None) -> Tensor:
    return 0.5 * (fake - 1).square().mean()


def _relativistic_g(fake: Tensor, real: Tensor | None) -> Tensor:
    if real is None:
        raise TypeError("the relativistic generator loss needs the logits of as many reals as fakes")
    return softplus(real - fake).mean()


def _loss(found: Any) -> AdversarialLoss:
    if isinstance(found, AdversarialLoss):
        return found
    raise TypeError(f"{describe(found)}; name an orthogan.losses.AdversarialLoss")


LOSSES: Registry[AdversarialLoss] = Registry("loss", adopt=_loss)
LOSSES.register("hinge")(
    AdversarialLoss(
        _hinge_d,
        _minus_mean,
        about="D: E[relu(1 - real)] + E[relu(1 + fake)]; G: -E[fake] (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. "
        "2018, eq. 17-18, arXiv:1802.05957)",
    )
)
LOSSES.register("non_saturating")(
    AdversarialLoss(
        _non_saturating_d,
        _non_saturating_g,
        about="D: E[softplus(-real)] + E[softplus(fake)]; G: E[softplus(-fake)] (Goodfellow et al. 2014, section 3, "
        "arXiv:1406.2661)",
    )
)
LOSSES.register("wasserstein")(
    AdversarialLoss(
        _wasserstein_d,
        _minus_mean,
        about="D: E[fake] - E[real]; G: -E[fake] (Arjovsky et al. 2017, eq. 2, arXiv:1701.07875)",
    )
)
LOSSES.register("least_squares")(
    AdversarialLoss(
        _least_squares_d,
        _least_squares_g,
        about="D: E[(real - 1)^2] / 2 + E[fake^2] / 2; G: E[(fake - 1)^2] / 2 (Mao et al. 2017, eq. 9 with b = c = 1 "
        "and a = 0, arXiv:1611.04076)",
    )
)
LOSSES.register("relativistic")(
    AdversarialLoss(
        _relativistic_d,
        _relativistic_g,
        paired=True,
        about="pairs of one real and one fake: D: E[softplus(fake - real)]; G: E[softplus(real - fake)] "
        "(Jolicoeur-Martineau 2019, arXiv:1807.00734; Huang et al. 2024, eq. 2, arXiv:2501.05441)",
    )
)


def sign_mean(real: Tensor) -> Tensor:
    """Compute E[sign D(real)], the overfitting signal of adaptive augmentation (Karras et al. 2020, eq. 1)."""
    return torch.sign(real.detach()).mean()
