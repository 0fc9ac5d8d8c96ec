"""Random directions, the control for any method."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.spectrum import check_components
from orthogan.models.generate import model_hash
from orthogan.models.protocol import as_generator


@DIRECTION_METHODS.register("random")
def random_basis(generator: nn.Module, *, components: int | None = None, seed: int = 0) -> Directions:
    """Draw ``components`` (default latent_dim) random orthonormal directions: ``random_control`` for this generator.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import random_basis
        >>> random_basis(orthogan.load("sprites-sngan"), components=4).matrix.shape
        (4, 16)
    """
    net = as_generator(generator)
    return replace(random_control(net.latent_dim, check_components(net, components), seed), model_hash=model_hash(net))
