"""The controls: random directions and the latent's own axes, which any method has to beat."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.spectrum import check_components
from orthogan.latent.identity import model_hash
from orthogan.latent.native import latent_axes
from orthogan.models.protocol import as_generator


def random_basis(generator: nn.Module, *, components: int | None = None, seed: int = 0) -> Directions:
    """``components`` (default latent_dim) random orthonormal directions: ``random_control`` for this generator."""
    k = check_components(generator, components)
    return replace(random_control(as_generator(generator).latent_dim, k, seed), model_hash=model_hash(generator))


def identity_basis(generator: nn.Module, *, components: int | None = None) -> Directions:
    """The first ``components`` (default all) axes of the latent."""
    return latent_axes(generator).select(range(check_components(generator, components)))
