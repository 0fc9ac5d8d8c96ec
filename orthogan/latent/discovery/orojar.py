"""OroJaR (Wei et al., ICCV 2021, "Orthogonal Jacobian Regularization"): directions change the features at right angles.

As a regulariser of any training, and to find directions of a generator that is trained already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.hessian import Features, check_difference, listed, signs
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.rotate import learn_rotation
from orthogan.linalg.precision import at_least_float32


def orojar_penalty(
    function: Callable[[Tensor], Features],
    z: Tensor,
    k: int = 2,
    epsilon: float = 0.1,
    reduction: Literal["sum", "mean"] = "sum",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Scalar: the variance over ``k`` sign vectors x of |J x|^2, J the Jacobian of ``function`` at each latent.

    In expectation twice the sum of the squared off-diagonal entries of J^T J, averaged over the latents and summed
    over several features. ``function`` maps latents (n, d) to features (n, ...), or to several such, and must be
    deterministic. J x is the forward difference with step ``epsilon``. ``reduction``: |J x|^2 as the paper's "sum"
    over features, whose penalty grows with the square of their number, or as "mean". ``generator``: of the signs.

    Raises ``UserError`` for k below 2, epsilon not positive, or an unknown reduction.
    """
    check_difference(k, epsilon)
    if reduction not in ("sum", "mean"):
        raise UserError(f"reduction='{reduction}': 'sum' or 'mean' over the features")
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        here = listed(function(z))
        lengths: list[list[Tensor]] = []
        for _ in range(k):
            there = listed(function(z + epsilon * signs(z, generator)))
            squares = [
                ((at_least_float32(b) - at_least_float32(a)) / epsilon).square().flatten(1)
                for a, b in zip(here, there, strict=True)
            ]
            lengths.append([part.sum(1) if reduction == "sum" else part.mean(1) for part in squares])
        return torch.stack([torch.stack(same).var(dim=0).mean() for same in zip(*lengths, strict=True)]).sum()


@DIRECTION_METHODS.register("orojar")
def orojar(
    generator: nn.Module,
    *,
    components: int | None = None,
    layer: str | None = None,
    resolution: int | None = None,
    y: int | None = None,
    steps: int = 300,
    batch_size: int = 16,
    lr: float = 0.03,
    k: int = 2,
    epsilon: float = 0.1,
    seed: int = 0,
) -> Directions:
    """Orthonormal directions of a frozen generator whose effects on the features are nearest to orthogonal.

    The search, its scores and warnings are those of ``learn_rotation``. ``layer``, ``resolution``: where the
    features are taken (None: the whole image). Raises ``UserError`` for arguments that do not fit.
    """
    penalty = partial(orojar_penalty, k=k, epsilon=epsilon, reduction="mean")
    return learn_rotation(
        generator,
        lambda function, z, source: penalty(function, z, generator=source),
        method="orojar",
        components=components,
        layer=layer,
        resolution=resolution,
        y=y,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
    )
