"""Scores of directions, computed from generated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.activeness import VALUES, walk_variance
from orthogan.latent.directions import CHANGE, Directions
from orthogan.latent.discovery.learned import RCA, REACH, accuracy, teach, warn_of_chance
from orthogan.latent.discovery.response import trace_generator
from orthogan.latent.discovery.spectrum import check_positive
from orthogan.models.generate import in_space, sample_label, sample_latents
from orthogan.models.protocol import Generator, as_generator

ACTIVENESS = "activeness"
GREY = 127.5  # gray levels per unit of images in [-1, 1]


def score(
    generator: nn.Module,
    directions: Directions,
    *,
    seeds: Sequence[int] = tuple(range(16)),
    y: int | None = None,
    batch_size: int = 64,
) -> Directions:
    """Add two scores to directions, averaged over latents.

    "change" is the mean absolute change of a pixel at an offset of ±1, in gray levels 0 to 255. "activeness" (of the
    papers on the Hessian penalty and OroJaR) is the variance of a pixel of images in [-1, 1] over the coordinates -2, 0
    and 2 along the direction, which replace the coordinate of the latent.

    Args:
        directions: directions of this generator.
        seeds: random seeds of the latents, and of their classes.
        y: class of all latents of a conditional generator; None for those of the seeds.
        batch_size: images per batch.

    Raises:
        UserError: the directions do not match this generator, or there is no seed.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import score, sefa
        >>> generator = orthogan.load("sprites-sngan")
        >>> found = score(generator, sefa(generator).select([0, 1]), seeds=[0, 1])
        >>> sorted(found.scores)
        ['activeness', 'change', 'sigma']
    """
    directions.check(generator)
    seen, y = _in_space(generator, directions, y)
    check_positive(batch_size=batch_size)
    if not len(seeds):
        raise UserError("seeds: at least one is needed")
    rows = torch.from_numpy(directions.matrix.copy())
    units = rows / rows.norm(dim=1, keepdim=True)
    with trace_generator(seen, y=y) as response:
        z = sample_latents(seen, seeds)
        classes = [sample_label(seen, seed, None if y is None else [y]) for seed in seeds]

        def images(sample: Tensor, latents: Tensor) -> Tensor:
            """Images (n, pixels) in [-1, 1], float64 on the CPU, of latents (n, latent_dim) and their samples (n,)."""
            latents = latents.to(response.device)
            labels = torch.tensor(classes)[sample].to(response.device) if response.net.num_classes else None
            parts = [
                response(latents[few], None if labels is None else labels[few]).clamp(-1, 1).flatten(1).cpu().double()
                for few in torch.arange(len(latents)).split(batch_size)
            ]
            return torch.cat(parts)

        each = torch.arange(len(z))
        base = images(each, z)[:, None]
        change, activeness = [], []
        for row, unit in zip(rows, units, strict=True):
            ends = z[:, None] + torch.tensor([-1.0, 1.0])[:, None] * row
            moved = images(each.repeat_interleave(2), ends.flatten(0, 1)).unflatten(0, (-1, 2))
            change.append(float((moved - base).abs().mean()) * GREY)
            rest = z - (z @ unit)[:, None] * unit
            walked = walk_variance(
                lambda sample, _, value, rest=rest, unit=unit: images(sample, rest[sample] + value[:, None] * unit),
                samples=len(z),
                coordinates=1,
                values=torch.tensor(VALUES),
                batch_size=batch_size,
            )
            activeness.append(float(walked))
    return replace(directions, scores={**directions.scores, CHANGE: change, ACTIVENESS: activeness})


def rca(
    generator: nn.Module,
    directions: Directions,
    *,
    y: int | None = None,
    steps: int = 500,
    batch_size: int = 32,
    lr: float = 1e-3,
    reach: float = REACH,
    pairs: int = 64,
    seed: int = 0,
) -> Directions:
    """Add the score "rca" to directions: how often a small network recognizes which direction moved.

    Compare the mean over the directions with that of as many random ones. The chance level is 1 / their number, so
    different numbers of directions are not comparable. Warns if the mean is at chance level.

    Args:
        directions: directions of this generator.
        y: class of a conditional generator; None cycles through all classes.
        steps, batch_size, lr, reach, pairs: as in ``learned``.
        seed: random seed.

    Raises:
        UserError: the directions do not match this generator, or an argument is invalid.

    Source: Voynov & Babenko 2020, arXiv:2002.03754.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.latent.discovery import random_basis, rca
        >>> net = nn.Sequential(nn.Linear(3, 768), nn.Tanh(), nn.Unflatten(1, (3, 16, 16)))
        >>> net.latent_dim = 3
        >>> rca(net, random_basis(net, components=2), steps=2, batch_size=4, pairs=4).scores.keys()
        dict_keys(['rca'])
    """
    directions.check(generator)
    seen, y = _in_space(generator, directions, y)
    with trace_generator(seen, y=y) as response:
        rows = torch.from_numpy(directions.matrix.copy()).to(response.device)
        net = teach(response, lambda: rows, [], steps=steps, batch_size=batch_size, lr=lr, reach=reach, seed=seed)
        right: np.ndarray = accuracy(response, net, rows, pairs=pairs, reach=reach, seed=seed)
    warn_of_chance(right)
    return replace(directions, scores={**directions.scores, RCA: right.tolist()})


def _in_space(generator: nn.Module, directions: Directions, y: int | None) -> tuple[Generator, int | None]:
    """The generator seen from the space of the directions, and the class that it is still to be told."""
    if directions.space == "z":
        return as_generator(generator), y
    return in_space(generator, directions.space, y=y, layers=directions.layers), None
