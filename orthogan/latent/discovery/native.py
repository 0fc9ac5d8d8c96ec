"""Native directions of a generator: its own, if it declares some, else the axes of its latent."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from orthogan.arguments import checked
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.spectrum import check_components
from orthogan.models.generate import model_hash
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import as_generator


@DIRECTION_METHODS.register("identity", "axes")
@checked
def latent_axes(generator: nn.Module, *, components: int | None = None) -> Directions:
    """Return the axes of the latent as directions: "z0", "z1", …, or with the letter of the generator's ``axis``.

    Args:
        components: number of axes, the first ones; None for all.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import latent_axes
        >>> latent_axes(orthogan.load("sprites-sngan"), components=3).names
        ('z0', 'z1', 'z2')
    """
    net = as_generator(generator)
    k, axis = check_components(net, components), getattr(net, "axis", "z")
    return Directions(
        np.eye(k, net.latent_dim, dtype=np.float32),
        method="latent axes",
        names=[f"{axis}{i}" for i in np.arange(k)],
        model_hash=model_hash(generator),
    )


@DIRECTION_METHODS.register("native")
@checked
def native_directions(generator: nn.Module) -> Directions:
    """Return the directions that a generator brings itself, or else the axes of its latent.

    A generator may have a method ``native_directions()``, which returns a (k, latent_dim) tensor or array, whose order
    and signs are kept, or None; and ``native_names()``, k strings, and ``native_scores()``, k numbers by name.

    Example:
        >>> import orthogan
        >>> directions = orthogan.native_directions(orthogan.load("sprites-sngan"))
        >>> directions.names[:3]
        ('z0', 'z1', 'z2')
    """
    own = getattr(generator, "native_directions", None)
    if own is None:
        return latent_axes(generator)
    with eval_mode(generator):
        rows = own()
    if rows is None:
        return latent_axes(generator)
    matrix = rows.detach().float().cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
    names = generator.native_names() if hasattr(generator, "native_names") else ()  # pyright: ignore
    scores = generator.native_scores() if hasattr(generator, "native_scores") else {}  # pyright: ignore
    found = Directions(matrix, method="native", names=names, scores=scores, model_hash=model_hash(generator))
    found.check(generator, where=f"{type(generator).__name__}.native_directions()")
    return found
