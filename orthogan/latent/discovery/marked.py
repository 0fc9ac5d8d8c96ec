"""A direction from two groups of marked pictures: from the mean of the first to that of the second."""

from __future__ import annotations

from torch import nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.boundary import boundaries
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.oracle import read_samples
from orthogan.latent.discovery.probe import fit_probe
from orthogan.latent.factors import Features
from orthogan.latent.labels import Labels
from orthogan.models.protocol import as_generator


@DIRECTION_METHODS.register("marked")
def marked(
    generator: nn.Module,
    *,
    groups: Labels | None = None,
    features: Features | None = None,
    samples: int = 400,
    y: int | None = None,
    seed: int = 0,
) -> Directions:
    """Find the direction that leads from one group of pictures to another, such as without and with a smile.

    Without ``features``, it is the difference of the mean latents of both groups (White 2016, arXiv:1609.04468), or for
    at least 4 pictures per latent dimension a linear boundary as in ``labels``. With ``features``, a linear probe of
    them is fitted to the marked pictures and reads ``samples`` others, whose values are regressed to the latent: a few
    marks say more about pictures than about latents of many dimensions. The score "correlation", on pictures that were
    held out, is that of the coordinate along the direction with the mark, or with what the probe reads.

    Args:
        groups: the two groups, from ``Labels.from_groups``.
        features: maps uint8 images (n, c, h, w) to features (n, d).
        y: class of the ``samples`` of a conditional generator; None cycles through all classes.

    Raises:
        UserError: no groups, fewer than two pictures in one, or latents of another space.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import Labels
        >>> from orthogan.latent.discovery import marked
        >>> generator = orthogan.load("sprites-sngan")
        >>> groups = Labels.from_groups("0,2,5", "1,3,4", generator, name="large")
        >>> marked(generator, groups=groups).names
        ('large',)
    """
    if groups is None:
        raise UserError(
            "method marked: needs two groups of pictures: orthogan discover --method marked --marked A B (folders or "
            "seeds); other commands read the result with --directions"
        )
    values = groups.values
    if features is None:
        latents = groups.latents(as_generator(generator)).numpy()
    else:
        latents, values = read_samples(generator, fit_probe(generator, groups, features), samples, y=y, seed=seed)
    return boundaries(generator, latents, values, groups.names, groups.groups, method="marked", seed=seed)
