"""Directions from labels of generated pictures: the normals of linear boundaries (Shen et al. 2020, "InterFaceGAN")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.boundary import boundaries
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.labels import Labels
from orthogan.models.protocol import as_generator


@DIRECTION_METHODS.register("labels")
def labels(
    generator: nn.Module,
    *,
    table: Labels | None = None,
    attributes: Sequence[str] = (),
    conditional: bool = False,
    seed: int = 0,
) -> Directions:
    """Find one direction per attribute of ``table``, along which it increases.

    Yes and no are separated by a linear support vector machine, and numbers are regressed; for few labels, the
    difference of the means is used (``orthogan.latent.discovery.boundary.fit_row``). The score "correlation" is that of
    the label with the coordinate along the direction, on labels that were held out.

    Args:
        table: the labels; see ``orthogan.latent.Labels``.
        attributes: names or groups of the columns to use, in this order; none for all.
        conditional: make each direction orthogonal to those of all other factors.

    Raises:
        UserError: no labels, an unknown attribute, too few labels, or latents of another space.

    Source: Shen et al. 2020, arXiv:2005.09635.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import Labels
        >>> from orthogan.latent.discovery import labels
        >>> table = Labels.from_seeds(range(6), {"large": ["no", "yes", "no", "yes", "yes", "no"]})
        >>> labels(orthogan.load("sprites-sngan"), table=table).names
        ('large',)
    """
    if table is None:
        raise UserError(
            "method labels: needs labels of pictures: orthogan discover --method labels --labels FILE.csv (columns "
            "seed and one per attribute); other commands read the result with --directions"
        )
    chosen = table.select(attributes)
    return boundaries(
        generator,
        chosen.latents(as_generator(generator)).numpy(),
        chosen.values,
        chosen.names,
        chosen.groups,
        method="labels",
        conditional=conditional,
        seed=seed,
    )
