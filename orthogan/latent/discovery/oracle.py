"""Directions from a classifier of known factors, which labels any number of generated pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.boundary import CORRELATION, boundaries
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.spectrum import check_positive
from orthogan.latent.factors import FactorReader
from orthogan.latent.labels import choose_columns
from orthogan.models.generate import generate
from orthogan.models.label_table import classes_at
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive

RARE = 0.05  # attributes with a mean below it, or above 1 minus it, are left out unless they are named


@DIRECTION_METHODS.register("oracle")
def oracle(
    generator: nn.Module,
    *,
    reader: FactorReader | None = None,
    attributes: Sequence[str] = (),
    conditional: bool = False,
    samples: int = 2000,
    y: int | None = None,
    seed: int = 0,
) -> Directions:
    """Find one direction per factor or value of a factor that ``reader`` reads in ``samples`` generated pictures.

    What the reader returns for each picture is regressed to its latent: the direction is the mean gradient for Gaussian
    latents (Stein's lemma). The score "correlation" is on pictures that were held out.

    Args:
        reader: reads the factors; ``orthogan.disentanglement.factor_reader`` trains one on images with known factors.
        attributes: names or groups of the reader's columns, in this order; none for all that at least 5% of the
            pictures have and 5% do not have, by descending correlation.
        conditional: make each direction orthogonal to those of all other factors.
        y: class of a conditional generator; None cycles through all classes.

    Raises:
        UserError: no reader, an unknown attribute, or one that all pictures have in common.

    Source: Shen et al. 2020, arXiv:2005.09635, with a regression in place of the boundary.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import oracle
        >>> class Brightness:
        ...     names = groups = ("brightness",)
        ...     def read(self, images):
        ...         return images.reshape(len(images), -1).mean(1, keepdims=True) / 255
        ...
        >>> found = oracle(orthogan.load("sprites-sngan"), reader=Brightness(), samples=100, attributes=["brightness"])
        >>> found.names, found.matrix.shape
        (('brightness',), (1, 16))
    """
    if reader is None:
        raise UserError(
            "method oracle: needs images with known factors: orthogan discover --method oracle --data faces (or "
            "sprites, or a config); other commands read the result with --directions"
        )
    latents, read = read_samples(generator, reader, samples, y=y, seed=seed)
    kept = choose_columns(reader.names, reader.groups, attributes)
    if not attributes:
        mean = read.mean(axis=0)
        kept = [at for at in kept if RARE <= mean[at] <= 1 - RARE]
        if not kept:
            raise UserError("method oracle: no factor varies in the pictures of this generator")
    found = boundaries(
        generator,
        latents,
        read[:, kept],
        [reader.names[at] for at in kept],
        [reader.groups[at] for at in kept],
        method="oracle",
        conditional=conditional,
        seed=seed,
    )
    return found if attributes else found.sorted_by(CORRELATION)


def read_samples(
    generator: nn.Module, reader: FactorReader, samples: int, *, y: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``samples`` latents (n, latent_dim) of the prior, and what ``reader`` reads in their pictures (n, columns)."""
    check_positive(samples=samples)
    net: Generator = as_generator(generator)
    z = net.sample_latent(samples, seed=derive(seed, "directions from factors"))
    labels = None
    if net.num_classes:
        labels = classes_at(net, torch.arange(samples)).numpy() if y is None else np.full(samples, y)
    parts = [slice(at, at + 256) for at in range(0, samples, 256)]
    read = [
        reader.read(generate(net, z[part], None if labels is None else labels[part], batch_size=64)) for part in parts
    ]
    return z.cpu().numpy(), np.concatenate(read).astype(np.float64)
