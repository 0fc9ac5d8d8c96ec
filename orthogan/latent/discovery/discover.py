"""Several methods at once, scored beside random directions: what ``orthogan discover`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.terminal import text_table
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import find_directions
from orthogan.latent.discovery.random_basis import random_basis
from orthogan.latent.discovery.scores import rca, score
from orthogan.models.generate import in_space, model_hash


@dataclass(frozen=True)
class Discovery:
    """Directions with their scores, and the scores of random ones, which a find has to beat.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import discover
        >>> found = discover(orthogan.load("sprites-srngan"), "sefa", components=2, control=2)
        >>> len(found.directions), len(found.control)
        (2, 2)
    """

    directions: Directions
    control: Directions

    def table(self) -> str:
        """One line per direction, the control's mean last."""
        scores = self.directions.scores
        rows = []
        for i, name in enumerate(self.directions.names):
            values = [f"{numbers[i]:.4g}" for numbers in scores.values()]
            rows.append([printable(name), *values, printable(self.directions.notes[i])])
        means = [f"{np.mean(self.control.scores[k]):.4g}" if k in self.control.scores else "" for k in scores]
        rows.append([f"random ({len(self.control)}, mean)", *means, ""])
        return text_table(rows, f"l{'r' * len(scores)}l", ["direction", *scores, "note"])


def discover(
    generator: nn.Module,
    methods: str | Sequence[str] = "sefa",
    *,
    threshold: float = 0.9,
    control: int = 8,
    with_rca: bool = False,
    y: int | None = None,
    seed: int = 0,
    components: int | None = None,
    space: str = "z",
    layers: Sequence[int] = (),
    **options: Any,
) -> Discovery:
    """Find directions by one or several methods, merge near duplicates, score them, and random ones beside them.

    Args:
        methods: names of ``DIRECTION_METHODS`` or ``module:function``, as a list or one string with commas.
        threshold: a direction whose |cosine| with an earlier one is above it is merged into that.
        control: how many random orthonormal directions to score for comparison.
        with_rca: also train a small net to tell which direction moved (see ``rca``), minutes on a CPU; the control is
            then as large as the find, since the number of directions decides what chance is.
        y: class of a conditional generator; None takes them in turn, in z.
        components: how many directions of each method, its first ones; None for all it finds.
        space: the latent space to look in, one of the generator's own (``orthogan.models.generate.in_space``).
        layers: numbers of the layers that take the latent there; none for all. The others stay at the mean.
        options: passed to those methods that know them (layer, samples, steps, batch_size, …).

    Raises:
        UserError: an unknown method, space or layer, or an option that none of the methods has.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.discovery import discover
        >>> found = discover(orthogan.load("sprites-srngan"), ["sefa", "random"], components=2, control=2)
        >>> sorted(found.directions.scores), len(found.control)
        (['activeness', 'change'], 2)
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold}: a cosine above 0, at most 1")
    if control < 1:
        raise UserError(f"control={control}: at least 1 random direction to compare with")
    net = in_space(generator, space, y=y, layers=layers)
    label = y if space == "z" else None  # a view of another space has its class in it
    directions = find_directions(
        net, methods, threshold=threshold, y=label, seed=seed, components=components, **options
    )
    size = len(directions) if with_rca else control
    chance = random_basis(net, components=min(size, directions.latent_dim), seed=seed)

    def scored(some: Directions) -> Directions:
        values = score(net, some, y=label)
        if with_rca:
            values = rca(net, values, y=label, seed=seed)
        if space == "z":
            return values
        unit = f"units of {space}"
        return replace(values, space=space, layers=layers, unit=unit, model_hash=model_hash(generator))

    return Discovery(scored(directions), scored(chance))
