"""Directions with the smallest OroJaR, which change the features orthogonally (Wei et al., ICCV 2021)."""

from __future__ import annotations

from functools import partial

from torch import nn

from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.rotate import learn_rotation
from orthogan.penalties.latent import orojar_penalty


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
    """Find orthonormal directions of a frozen generator whose effects on the features are most orthogonal (OroJaR).

    The search, its scores and warnings are those of ``orthogan.latent.discovery.rotate.learn_rotation``.

    Args:
        components: number of directions, at least 2; None for latent_dim.
        layer: the submodule whose output is used; None for the images.
        resolution: average feature maps down to this height and width; None for their own.
        y: class of a conditional generator; None cycles through all classes.
        steps, batch_size, lr: of the optimization by Adam.
        k: number of random vectors for the variance.
        epsilon: step size of the finite difference.
        seed: random seed.

    Raises:
        UserError: an argument is invalid, or the penalty is not finite.

    Source: Wei et al. 2021, arXiv:2108.07668.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.latent.discovery import orojar
        >>> net = nn.Sequential(nn.Linear(3, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
        >>> net.latent_dim = 3
        >>> orojar(net, components=2, steps=5).matrix.shape
        (2, 3)
    """
    return learn_rotation(
        generator,
        partial(orojar_penalty, k=k, epsilon=epsilon, reduction="mean"),
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
